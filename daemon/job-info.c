/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "mitherm-job-private.h"

static void start (MithermJob *self, const GError *error);

static void
on_info_read (MithermJob *self, const GError *error)
{
  if (error != NULL)
    mitherm_job_repeat (self, error, start);
  else
    mitherm_job_done (self);
}

static void
fill_result (MithermJob *self)
{
  const MithermReadout *readout = &self->readout;
  const MithermFacts *facts = mitherm_device_get_facts (self->device);

  mitherm_job_result_string (self, "firmware", facts->firmware);
  mitherm_job_result_string (self, "hardware", readout->hardware);
  mitherm_job_result_string (self, "model", facts->model);
  mitherm_job_result_string (self, "serial", readout->serial);
  mitherm_job_result_string (self, "software", readout->software);
  mitherm_job_result_string (self, "manufacturer", readout->manufacturer);
  if (readout->battery_mv != 0)
    mitherm_job_result_uint (self, "battery-mv", readout->battery_mv);
}

static void
on_facts_read (MithermJob *self, const GError *error)
{
  if (error != NULL)
    {
      mitherm_job_repeat (self, error, start);
      return;
    }
  mitherm_job_publish_readout (self);
  fill_result (self);
  if (self->readout.has_mi)
    mitherm_job_read_info (self, on_info_read);
  else
    mitherm_job_done (self);
}

static void
on_connected (MithermJob *self, const GError *error)
{
  if (error != NULL)
    {
      mitherm_job_fail (self, error);
      return;
    }
  mitherm_job_set_state (self, "info");
  mitherm_job_read_facts (self, on_facts_read);
}

static void
start (MithermJob *self, const GError *error)
{
  mitherm_job_connect (self, on_connected);
}

static const MithermJobKind info_kind = {
  .name = "info",
  .start = start,
};

MithermJob *
mitherm_job_info_new (MithermDevice *device, GError **error)
{
  MithermJob *self;

  if (!mitherm_job_check_free (device, error))
    return NULL;
  self = mitherm_job_new (device, &info_kind, NULL);
  mitherm_job_submit (self);
  return self;
}
