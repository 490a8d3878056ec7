/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include <string.h>

#include "mi-advert.h"
#include "mi-bytes.h"
#include "mi-crypto.h"
#include "mi-login.h"
#include "mitherm-job-private.h"
#include "mitherm-log.h"
#include "mitherm-sensor.h"

/* A login that the radio spoilt is repeated with the same keys, this often in one job. */

static void try_login (MithermJob *self, const GError *error);

/* Which keys, in which order */

static void
add_sets (GPtrArray *sets, const MithermRecord *record, gboolean current)
{
  for (guint i = 0; i < record->keys->len; i++)
    {
      const MithermKeySet *set = g_ptr_array_index (record->keys, i);

      if (set->has_token && (set->state == MITHERM_KEY_CURRENT) == current)
        g_ptr_array_add (sets, mitherm_key_set_copy (set));
    }
}

/* The current set, then the others, newest first. */
static GPtrArray *
collect_sets (MithermJob *self)
{
  GPtrArray *sets = g_ptr_array_new_with_free_func ((GDestroyNotify) mitherm_key_set_free);
  const MithermRecord *record = mitherm_device_get_record (self->device);

  if (record != NULL)
    {
      add_sets (sets, record, TRUE);
      add_sets (sets, record, FALSE);
    }
  return sets;
}

gboolean
mitherm_job_can_login (MithermJob *self)
{
  g_autoptr (GPtrArray) sets = collect_sets (self);

  return sets->len > 0;
}

/* "current", "pending", or "history:N", N = 1 for the newest of the old ones. */
static char *
describe_set (const MithermRecord *record, guint index)
{
  const MithermKeySet *set = g_ptr_array_index (record->keys, index);
  guint n = 1;

  if (set->state != MITHERM_KEY_OLD)
    return g_strdup (mitherm_key_state_to_string (set->state));
  for (guint i = 0; i < index; i++)
    n += ((MithermKeySet *) g_ptr_array_index (record->keys, i))->state == MITHERM_KEY_OLD;
  return g_strdup_printf ("history:%u", n);
}

/* The thermometer has proven to hold the set at @index: it is the current one from now on. */
static gboolean
adopt_set (MithermJob *self, int index, GError **error)
{
  const MithermRecord *record;
  g_autofree char *which = NULL;

  /* That writes the record, so it is asked for afterwards. */
  mitherm_device_set_bound (self->device, MITHERM_BOUND_YES);
  record = mitherm_device_get_record (self->device);
  if (index < 0) /* forgotten while the job ran */
    return TRUE;
  which = describe_set (record, (guint) index);
  mitherm_job_result_string (self, "keys", which);
  self->pending_written = FALSE;
  if (!mitherm_store_promote (mitherm_manager_get_store (self->manager), record->address,
                              (guint) index, error))
    return FALSE;
  mitherm_device_keys_changed (self->device);
  return TRUE;
}

/* The chain */

static void
login_end (MithermJob *self, const GError *error)
{
  MithermJobStep next = self->login_next;

  g_clear_pointer (&self->login_sets, g_ptr_array_unref);
  mitherm_job_continue (self, next, error);
}

static void
login_again (MithermJob *self, const GError *error)
{
  mitherm_job_connect (self, try_login);
}

static gboolean
is_wrong_keys (const GError *error)
{
  return g_error_matches (error, MI_ERROR, MI_ERROR_WRONG_TOKEN)
         || g_error_matches (error, MI_ERROR, MI_ERROR_LOGIN_REFUSED);
}

static void
on_refused (MithermJob *self, const GError *error)
{
  g_autoptr (GError) refused = NULL;

  if (mitherm_job_is_transient (error) && self->login_repeats < MITHERM_JOB_REPEATS_MAX)
    {
      self->login_repeats++;
      mitherm_job_disconnect (self, login_again);
      return;
    }
  if (!is_wrong_keys (error))
    {
      if (g_error_matches (error, MI_ERROR, MI_ERROR_NOT_BOUND))
        {
          self->pending_written = FALSE;
          mitherm_device_set_bound (self->device, MITHERM_BOUND_NO);
        }
      login_end (self, error);
      return;
    }
  if (++self->login_index < self->login_sets->len)
    {
      mitherm_job_disconnect (self, login_again);
      return;
    }
  refused = g_error_new (MITHERM_ERROR, MITHERM_ERROR_AUTH_FAILED,
                         "None of the %u stored token(s) is the thermometer's: %s.",
                         self->login_sets->len, error->message);
  login_end (self, refused);
}

static void
on_login (MithermJob *self, const GError *error)
{
  const MithermKeySet *set = g_ptr_array_index (self->login_sets, self->login_index);
  g_autoptr (GError) storage = NULL;
  int index;

  if (error != NULL)
    {
      on_refused (self, error);
      return;
    }
  index = mitherm_record_find_token (mitherm_device_get_record (self->device), set->keys.token);
  /* E2 proves nothing about the token: then nothing is promoted. */
  if (!mi_login_was_already (self->procedure) && !adopt_set (self, index, &storage))
    login_end (self, storage);
  else
    login_end (self, NULL);
}

static void
try_login (MithermJob *self, const GError *error)
{
  const MithermKeySet *set;

  if (error != NULL)
    {
      login_end (self, error);
      return;
    }
  mitherm_job_set_state (self, "logging-in");
  set = g_ptr_array_index (self->login_sets, self->login_index);
  mitherm_job_run (self,
                   mi_login_new (mi_runner_get_sizes (self->runner), set->keys.token,
                                 mi_crypto_random, NULL, self->login_explores),
                   on_login);
}

void
mitherm_job_login (MithermJob *self, MithermJobStep next)
{
  g_autoptr (GError) error = NULL;

  self->login_next = next;
  g_clear_pointer (&self->login_sets, g_ptr_array_unref);
  self->login_sets = collect_sets (self);
  self->login_index = 0;
  self->login_repeats = 0;
  if (self->login_sets->len > 0)
    {
      try_login (self, NULL);
      return;
    }
  error = g_error_new_literal (MITHERM_ERROR, MITHERM_ERROR_NO_KEYS,
                               "No token of this thermometer is stored.");
  login_end (self, error);
}

/* The keys just registered are the current ones, and so the first of the chain. */
void
mitherm_job_confirm (MithermJob *self, MithermJobStep next)
{
  self->login_next = next;
  g_clear_pointer (&self->login_sets, g_ptr_array_unref);
  self->login_sets = collect_sets (self);
  if (self->login_sets->len > 1)
    g_ptr_array_set_size (self->login_sets, 1);
  self->login_index = 0;
  self->login_repeats = 0;
  try_login (self, NULL);
}

/* The job "login" */

static void
on_logged_in (MithermJob *self, const GError *error)
{
  if (error != NULL)
    mitherm_job_fail (self, error);
  else
    mitherm_job_done (self);
}

static void
login_connected (MithermJob *self, const GError *error)
{
  if (error != NULL)
    mitherm_job_fail (self, error);
  else if (mi_link_get_flags (self->link, MI_CHANNEL_AUTH) == 0
           || mi_link_get_flags (self->link, MI_CHANNEL_CONTROL) == 0)
    mitherm_job_fail_new (self, MITHERM_ERROR_UNSUPPORTED,
                          "The running firmware has no Mi service, so that there is nothing to log "
                          "in to.");
  else
    mitherm_job_login (self, on_logged_in);
}

static void
login_start (MithermJob *self, const GError *error)
{
  mitherm_job_connect (self, login_connected);
}

static const MithermJobKind login_kind = {
  .name = "login",
  .action = "login",
  .start = login_start,
};

/* The passive login: whether a bind key opens what the thermometer sends */

static int
find_bind_key (const MithermRecord *record, const MithermAdvert *advert)
{
  for (guint i = 0; record != NULL && i < record->keys->len; i++)
    {
      const MithermKeySet *set = g_ptr_array_index (record->keys, i);

      if (set->has_bind_key
          && mitherm_sensor_try_key (advert, set->keys.bind_key) == MITHERM_OPENS_YES)
        return (int) i;
    }
  return -1;
}

static void
on_passive_advert (MithermDevice *device, const MithermAdvert *advert, gpointer user_data)
{
  MithermJob *self = user_data;
  const MithermRecord *record = mitherm_device_get_record (device);
  g_autoptr (GError) error = NULL;
  guint8 address[6];
  MiAdvert decoded;
  int index;

  if (!mi_address_parse (advert->address, address))
    return;
  mi_advert_decode (advert->uuid, address, advert->data, advert->len, NULL, &decoded);
  if (decoded.error != MI_ADVERT_ERROR_NO_KEY) /* nothing encrypted in this one */
    return;
  index = find_bind_key (record, advert);
  if (index < 0)
    {
      /* One frame may have been damaged on its way. */
      if (++self->login_repeats > MITHERM_JOB_REPEATS_MAX)
        mitherm_job_fail_new (self, MITHERM_ERROR_AUTH_FAILED,
                              "No stored bind key opens what the thermometer sends.");
      return;
    }
  if (!adopt_set (self, index, &error))
    mitherm_job_fail (self, error);
  else
    mitherm_job_done (self);
}

static void
passive_over (MithermJob *self, const GError *error)
{
  mitherm_job_fail_new (self, MITHERM_ERROR_TIMEOUT,
                        "The thermometer sent nothing encrypted within %u s.",
                        mitherm_job_timing.passive_ms / 1000);
}

static void
passive_start (MithermJob *self, const GError *error)
{
  mitherm_job_set_state (self, "logging-in");
  self->patient = TRUE;
  mitherm_device_set_listener (self->device, on_passive_advert, self);
  mitherm_job_pause (self, mitherm_job_timing.passive_ms, passive_over);
}

static const MithermJobKind passive_kind = {
  .name = "login",
  .action = "login",
  .passive = TRUE,
  .start = passive_start,
};

MithermJob *
mitherm_job_login_new (MithermDevice *device, gboolean passive, GError **error)
{
  const MithermRecord *record = mitherm_device_get_record (device);
  MithermJob *self;

  if (!mitherm_job_check_free (device, error))
    return NULL;
  if (record != NULL && record->broken != NULL && record->keys->len == 0)
    {
      g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_STORAGE,
                   "The key file of %s could not be read and was put aside as %s. The thermometer "
                   "is as before. Repair that file, or import the keys again.",
                   record->address, record->broken);
      return NULL;
    }
  if (record == NULL || record->keys->len == 0)
    {
      g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_NO_KEYS,
                   "No keys of %s are stored. Activate it, or import its keys.",
                   mitherm_device_get_address (device));
      return NULL;
    }
  self = mitherm_job_new (device, passive ? &passive_kind : &login_kind, NULL);
  mitherm_job_submit (self);
  return self;
}
