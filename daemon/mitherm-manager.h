/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <gio/gio.h>

#include "mi-models.h"
#include "mi-rules.h"
#include "mitherm-agent.h"
#include "mitherm-auth.h"
#include "mitherm-catalog.h"
#include "mitherm-radio.h"
#include "mitherm-store.h"

G_BEGIN_DECLS

typedef struct _MithermDevice MithermDevice;
typedef struct _MithermJob MithermJob;
typedef struct _MithermSensorWatch MithermSensorWatch;

#define MITHERM_TYPE_MANAGER (mitherm_manager_get_type ())
G_DECLARE_FINAL_TYPE (MithermManager, mitherm_manager, MITHERM, MANAGER, GObject)

/**
 * MithermManagerConfig:
 * @connection: (nullable): bus of our API; without it nothing is exported (tests)
 * @auth: (nullable): without it everything is allowed (tests)
 * @catalog: (nullable): firmware files that may be offered
 * @roots: public keys (X || Y) that images may be signed with, one after the other; none: the
 *   vendor's
 * @stale_s: least time without a value after which a sensor is stale, 0: 15 minutes
 * @wait_for_reads: an upload waits for each read before it writes on
 *
 * All pointers stay the caller's and must outlive the manager.
 */
typedef struct
{
  GDBusConnection *connection;
  MithermRadio *radio;
  MithermStore *store;
  MiModels *models;
  MiRules *rules;
  MithermAuth *auth;
  MithermCatalog *catalog;
  const guint8 *roots;
  gsize n_roots;
  const guint8 *credential_roots;
  gsize n_credential_roots;
  guint stale_s;
  gboolean discovery;
  gboolean wait_for_reads;
} MithermManagerConfig;

/**
 * mitherm_manager_new:
 *
 * The daemon's objects: the manager, every thermometer known, and the jobs.
 */
MithermManager *mitherm_manager_new (const MithermManagerConfig *config);

/* Puts everything on the bus; before the bus name is taken. */
gboolean mitherm_manager_export (MithermManager *self, GError **error);

/* Cancels all jobs and stops listening; nothing is called back afterwards. */
void mitherm_manager_stop (MithermManager *self);

/* (nullable) */
GDBusConnection *mitherm_manager_get_connection (MithermManager *self);
MithermRadio *mitherm_manager_get_radio (MithermManager *self);
MithermStore *mitherm_manager_get_store (MithermManager *self);
const MithermManagerConfig *mitherm_manager_get_config (MithermManager *self);
MiModels *mitherm_manager_get_models (MithermManager *self);
/* (nullable) */
MithermCatalog *mitherm_manager_get_catalog (MithermManager *self);
/* (nullable): without a bus there are none */
MithermAgents *mitherm_manager_get_agents (MithermManager *self);

/* (transfer none) (nullable) */
MithermDevice *mitherm_manager_find_device (MithermManager *self, const char *address);
guint mitherm_manager_count_devices (MithermManager *self);
/* Seconds after which a silent thermometer without keys and jobs leaves; 600. */
void mitherm_manager_set_expiry (MithermManager *self, guint seconds);

/* (transfer full): an image with the roots that count here */
MiImage *mitherm_manager_new_image (MithermManager *self, GBytes *file);

/* Whether @credential is for @keys and signed by a root that counts here:
 * mi_credential_verify(). */
gboolean mitherm_manager_verify_credential (MithermManager *self, const MiCredential *credential,
                                            const MiKeys *keys, GError **error);

/* For jobs and devices. */

/* A number that was never used in this run. */
guint mitherm_manager_next_number (MithermManager *self);
/* Takes a reference; starts it when its adapter and its thermometer are free. */
void mitherm_manager_queue (MithermManager *self, MithermJob *job);
/* The job will not use the radio any more: the next one may start. */
void mitherm_manager_release (MithermManager *self, MithermJob *job);
/* The job is no longer active. */
void mitherm_manager_job_ended (MithermManager *self, MithermJob *job);
void mitherm_manager_export_job (MithermManager *self, const char *path,
                                 GDBusInterfaceSkeleton *skeleton);
/* Nobody can read it any more: its path is gone. */
void mitherm_manager_drop_job (MithermManager *self, MithermJob *job);
/* Calls mitherm_device_emit() from the main loop. */
void mitherm_manager_emit_soon (MithermManager *self, MithermDevice *device);
/* Calls mitherm_device_flush() now or when it is @device's turn. */
void mitherm_manager_emit_later (MithermManager *self, MithermDevice *device);
/* @device has become a sensor. */
void mitherm_manager_show_sensor (MithermManager *self, MithermDevice *device);
MithermSensorWatch *mitherm_manager_get_watch (MithermManager *self);
/* Lets @device go if nothing holds it. */
void mitherm_manager_review (MithermManager *self, MithermDevice *device);
/* As mitherm_auth_check(). */
void mitherm_manager_authorize (MithermManager *self, GDBusMethodInvocation *invocation,
                                const char *action, MithermAuthFunc func, GObject *object);

G_END_DECLS
