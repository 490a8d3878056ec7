/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "mitherm-device.h"

G_BEGIN_DECLS

#define MITHERM_TYPE_JOB (mitherm_job_get_type ())
G_DECLARE_FINAL_TYPE (MithermJob, mitherm_job, MITHERM, JOB, GObject)

/* Seconds a finished job stays readable. */
#define MITHERM_JOB_LINGER_S 75

/*
 * The constructors check what can be known at once and queue the job; the reference returned is
 * the caller's. Errors are those of the method calls (org.mitherm.Device1).
 */

/* @timeout_s: for the whole job, 0: 180 */
MithermJob *mitherm_job_activate_new (MithermDevice *device, guint timeout_s, gboolean force,
                                      GError **error);
MithermJob *mitherm_job_login_new (MithermDevice *device, gboolean passive, GError **error);
MithermJob *mitherm_job_info_new (MithermDevice *device, GError **error);
/* @time_s: since 1970 UTC, -1: now; @zone: (nullable): the daemon's */
MithermJob *mitherm_job_clock_new (MithermDevice *device, gint64 time_s, const char *zone,
                                   GError **error);

typedef enum
{
  MITHERM_RISK_WRONG_HARDWARE = 1 << 0,
  MITHERM_RISK_UNSIGNED = 1 << 1,
  MITHERM_RISK_BATTERY_LOW = 1 << 2,
  MITHERM_RISK_UNKNOWN_VERSION = 1 << 3,
  MITHERM_RISK_DOWNGRADE = 1 << 4,
} MithermRisk;

gboolean mitherm_risk_from_string (const char *name, MithermRisk *out);

/**
 * MithermUpdateOptions:
 * @activate: register first if the thermometer is not bound
 * @expect_version: (nullable): what the last image's version must read as
 * @accept: risks taken
 * @window: blocks between two reads, 0: the default
 * @transport: (nullable): "auto", "telink" or "mible"
 * @envelope: (nullable): signature envelope around the last image
 */
typedef struct
{
  gboolean activate;
  const char *expect_version;
  MithermRisk accept;
  guint window;
  const char *transport;
  GBytes *envelope;
} MithermUpdateOptions;

/* @files: (element-type GBytes): one for each hop */
MithermJob *mitherm_job_update_new (MithermDevice *device, GPtrArray *files,
                                    const MithermUpdateOptions *options, GError **error);

/* @caller: (nullable): bus name of who asked for it, whose credential agent goes first */
void mitherm_job_set_caller (MithermJob *self, const char *caller);

const char *mitherm_job_get_path (MithermJob *self);
const char *mitherm_job_get_kind (MithermJob *self);
const char *mitherm_job_get_state (MithermJob *self);
MithermDevice *mitherm_job_get_device (MithermJob *self);
/* It only listens, and needs no adapter for itself. */
gboolean mitherm_job_is_passive (MithermJob *self);
/* Finished: done, failed or cancelled. */
gboolean mitherm_job_is_over (MithermJob *self);
/* (nullable): of a job that failed or was cancelled; MITHERM_ERROR */
const GError *mitherm_job_get_error (MithermJob *self);
/* (transfer none): a{sv}; after the end */
GVariant *mitherm_job_get_result (MithermJob *self);
double mitherm_job_get_progress (MithermJob *self);

/* Ends it as cancelled at once; the link drops behind it. Fails with MITHERM_ERROR_BUSY after the
 * end command of an upload. */
gboolean mitherm_job_cancel (MithermJob *self, GError **error);

/* For the manager: begins the work on @adapter (nullable). */
void mitherm_job_start (MithermJob *self, const char *adapter);
const char *mitherm_job_get_adapter (MithermJob *self);
/* Drops it without a word: the daemon ends. */
void mitherm_job_abandon (MithermJob *self);

/**
 * MithermJobTiming:
 *
 * Waits of jobs in milliseconds; tests shorten them.
 */
typedef struct
{
  guint retry_ms;   /* before an interrupted upload starts again */
  guint read_ms;    /* for one characteristic */
  guint step_ms;    /* without any news in one state */
  guint reboot_ms;  /* for the new version to answer */
  guint pause_ms;   /* between two attempts to connect */
  guint look_ms;    /* before looking, when the link did not drop after the end command */
  guint linger_ms;  /* a finished job stays readable */
  guint passive_ms; /* for an encrypted advertisement */
} MithermJobTiming;

extern MithermJobTiming mitherm_job_timing;

G_END_DECLS
