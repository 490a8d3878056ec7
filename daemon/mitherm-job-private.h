/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "mi-info.h"
#include "mi-runner.h"
#include "mitherm-error.h"
#include "mitherm-dbus.h"
#include "mitherm-job.h"

G_BEGIN_DECLS

/*
 * For the kinds of jobs (job-*.c). A job is a chain of steps: each step starts one wait and names
 * the step that follows. A step is never called after the job has ended.
 */

typedef void (*MithermJobStep) (MithermJob *self, const GError *error);

typedef struct
{
  const char *name;   /* Job1.Kind */
  const char *action; /* (nullable): what polkit is asked for before it is cancelled */
  MithermJobStep start;
  gboolean passive; /* it only listens: it holds no adapter */
  GDestroyNotify free_data;
  /* (nullable): whether it is too late to cancel */
  gboolean (*is_committed) (MithermJob *self);
  /* (nullable): progress of an upload */
  void (*progress) (MithermJob *self, guint32 done, guint32 total);
} MithermJobKind;

/* What one connection has told. */
typedef struct
{
  gboolean has_mi;    /* service 0xFE95 with opcodes and authentication data: stock firmware */
  gboolean has_ota;   /* Telink OTA */
  gboolean has_dfu;   /* mible DFU */
  char *version;      /* 0x0004 */
  char *model;        /* 2A24 */
  char *serial;       /* 2A25 */
  char *firmware;     /* 2A26 */
  char *hardware;     /* 2A27 */
  char *software;     /* 2A28 */
  char *manufacturer; /* 2A29 */
  guint battery_mv;   /* 0: could not be read */
} MithermReadout;

void mitherm_readout_clear (MithermReadout *readout);
/* (nullable): the one version that is shown */
const char *mitherm_readout_get_version (const MithermReadout *readout);
/* Whether any of the answers names @version. */
gboolean mitherm_readout_has_version (const MithermReadout *readout, MiModels *models,
                                      const MiModel *model, const char *version);

typedef enum
{
  PHASE_QUEUED,
  PHASE_RUNNING,
  PHASE_CLOSING, /* the work is done, the link drops */
  PHASE_OVER,
} MithermJobPhase;

struct _MithermJob
{
  GObject parent_instance;

  MithermManager *manager; /* until the last callback has come back */
  MithermDevice *device;
  const MithermJobKind *kind;
  gpointer data;
  char *path;
  MithermDBusJob1 *skeleton;
  MithermJobPhase phase;
  char *adapter;
  GError *error;
  GVariantDict result;
  GVariant *result_variant;
  GPtrArray *notes;

  GCancellable *cancellable;
  MiLink *link;
  MiRunner *runner;
  MiProcedure *procedure;
  gboolean in_run; /* the runner has borrowed the procedure */
  MithermJobStep next;
  gint64 news_us;          /* something happened */
  gint64 deadline_us;      /* of the whole job, 0: none */
  gint64 connect_until_us; /* of the next connect, 0: none */
  gboolean patient;        /* no limit for a state without news */
  guint watch_source;
  guint timer_source; /* of the step under way */
  guint linger_source;
  GCancellable *step_cancellable; /* of the read or connect under way */

  MithermReadout readout;
  guint read_index;
  GBytes *value; /* of mitherm_job_read() */

  MithermJobStep login_next;
  GPtrArray *login_sets; /* MithermKeySet, in the order in which they are tried */
  guint login_index;
  guint login_repeats;
  guint repeats;           /* of the whole job */
  gboolean login_explores; /* larger fragments are worth the time */

  MithermJobStep register_next;
  GError *storage_error;                /* why keys could not be made durable */
  char *caller;                         /* (nullable) */
  GCancellable *credential_cancellable; /* while an agent is asked */
  MiKeys credential_keys;               /* for which it is asked */
  GError *credential_error;             /* why there is no credential */

  /* What the sentences of an error need to know. */
  gboolean pending_written; /* keys that the thermometer may hold */
  gboolean registered;
  gboolean ota_started;
  gboolean ota_ended;
};

/* @kind: static. Takes @data. */
MithermJob *mitherm_job_new (MithermDevice *device, const MithermJobKind *kind, gpointer data);
/* Fails with MITHERM_ERROR_BUSY if @device has a job. */
gboolean mitherm_job_check_free (MithermDevice *device, GError **error);
/* Puts it on the bus and into the queue. */
void mitherm_job_submit (MithermJob *self);

void mitherm_job_set_state (MithermJob *self, const char *state);
void mitherm_job_set_limit (MithermJob *self, guint seconds);
void mitherm_job_note (MithermJob *self, const char *format, ...) G_GNUC_PRINTF (2, 3);
void mitherm_job_result_string (MithermJob *self, const char *key, const char *value);
void mitherm_job_result_uint (MithermJob *self, const char *key, guint value);
void mitherm_job_result_flag (MithermJob *self, const char *key, gboolean value);
void mitherm_job_result_strings (MithermJob *self, const char *key, GPtrArray *values);

/* Something happened: the limit of the state starts again. */
void mitherm_job_touch (MithermJob *self);

/* Ends the job. */
void mitherm_job_fail (MithermJob *self, const GError *error);
void mitherm_job_fail_new (MithermJob *self, MithermError code, const char *format, ...)
    G_GNUC_PRINTF (3, 4);
/* Drops the link, then ends as done. */
void mitherm_job_done (MithermJob *self);

/* Whether another connection may help. */
#define MITHERM_JOB_REPEATS_MAX 2
gboolean mitherm_job_is_transient (const GError *error);
/*
 * For a job that has changed nothing yet: drops the link and goes on with @step, if @error is
 * transient and that was not done too often. Else it fails.
 */
void mitherm_job_repeat (MithermJob *self, const GError *error, MithermJobStep step);

/* Steps. Each ends with a call of @next, with an error or NULL. */
void mitherm_job_connect (MithermJob *self, MithermJobStep next);
/* Drops the link and waits until it has gone; never fails. */
void mitherm_job_disconnect (MithermJob *self, MithermJobStep next);
/* The host drops its cache of services; never fails. */
void mitherm_job_forget_services (MithermJob *self, MithermJobStep next);
void mitherm_job_pause (MithermJob *self, guint ms, MithermJobStep next);
/* Versions, hardware and battery into self->readout; fails only when the link is lost. */
void mitherm_job_read_facts (MithermJob *self, MithermJobStep next);
/* Reads one characteristic into self->value. */
void mitherm_job_read (MithermJob *self, guint16 channel, MithermJobStep next);
/* Writes one and waits for the answer. */
void mitherm_job_write (MithermJob *self, guint16 channel, const guint8 *data, gsize len,
                        MithermJobStep next);
/* Runs @procedure (transfer full), which stays in self->procedure until the next run. */
void mitherm_job_run (MithermJob *self, MiProcedure *procedure, MithermJobStep next);
/* Device info; sets AuthVersion, and Bound if it tells. */
void mitherm_job_read_info (MithermJob *self, MithermJobStep next);
/* Logs in with the stored keys, on this connection and on new ones; Result.keys tells which. */
void mitherm_job_login (MithermJob *self, MithermJobStep next);
/* Registers on this connection; keys are written ahead. */
void mitherm_job_register (MithermJob *self, MithermJobStep next);
/* Logs in on this connection with the keys just registered. */
void mitherm_job_confirm (MithermJob *self, MithermJobStep next);
/* Whether there is a token to log in with. */
gboolean mitherm_job_can_login (MithermJob *self);
/* What device info has told, into the device's properties and the result. */
void mitherm_job_take_info (MithermJob *self, const MiDeviceInfo *info);

/* For implementers of steps: calls @next unless the job is over. */
void mitherm_job_continue (MithermJob *self, MithermJobStep next, const GError *error);
/* Forgets the link; it is dropped. */
void mitherm_job_drop_link (MithermJob *self);
/* The runner's callbacks of registrations (job-activate.c). */
void mitherm_job_persist (MiRunner *runner, const MiKeys *keys, MiKeyState state, gpointer job);
void mitherm_job_need_credential (MiRunner *runner, const MiKeys *keys, guint limit_ms,
                                  gpointer job);

/* What the readout says, into the device's facts. */
void mitherm_job_publish_readout (MithermJob *self);

/* (transfer full): what happened, the thermometer's state now, what to do next */
char *mitherm_job_explain (MithermJob *self, const GError *error);

G_END_DECLS
