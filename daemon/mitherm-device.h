/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "mi-advert.h"
#include "mitherm-manager.h"

G_BEGIN_DECLS

#define MITHERM_TYPE_DEVICE (mitherm_device_get_type ())
G_DECLARE_FINAL_TYPE (MithermDevice, mitherm_device, MITHERM, DEVICE, GObject)

#define MITHERM_DEVICE_PATH_PREFIX "/org/mitherm/device/"

/* @address: "A4:C1:38:00:00:01", upper case. Facts come from the store, if it has any. */
MithermDevice *mitherm_device_new (MithermManager *manager, const char *address);

const char *mitherm_device_get_address (MithermDevice *self);
const char *mitherm_device_get_path (MithermDevice *self);
MithermManager *mitherm_device_get_manager (MithermDevice *self);

/* For the tree of objects. A call is answered; a property is (transfer floating). Properties that
 * @sensor asks for are those of Sensor1. */
void mitherm_device_call (MithermDevice *self, const char *method,
                          GDBusMethodInvocation *invocation);
GVariant *mitherm_device_get_property (MithermDevice *self, const char *name, gboolean sensor);
GVariant *mitherm_device_get_properties (MithermDevice *self, gboolean sensor);
/* Whether it has Sensor1. */
gboolean mitherm_device_is_sensor (MithermDevice *self);
/* Changes are signalled from now on, or no more. */
void mitherm_device_set_on_bus (MithermDevice *self, gboolean on_bus);
/* Signals what has changed. */
void mitherm_device_emit (MithermDevice *self);

/* Once an advertisement; no allocation and no signal while nothing but Rssi and LastSeen changes.
 */
void mitherm_device_heard (MithermDevice *self, const MithermAdvert *advert,
                           const MiAdvertIdentity *identity);
/* Afterwards, once it is on the bus: what it measures. */
void mitherm_device_measure (MithermDevice *self, const MithermAdvert *advert);
/* Monotonic time of the last advertisement, 0: never in this run. */
gint64 mitherm_device_get_heard_us (MithermDevice *self);
/*
 * Signals what Sensor1 has to tell, or lets Rssi, LastSeen and Adapter be signalled: one signal a
 * call, the two never at once. Returns: whether there was any
 */
gboolean mitherm_device_flush (MithermDevice *self);
/* Whether another call would signal something. */
gboolean mitherm_device_has_news (MithermDevice *self);

const MithermFacts *mitherm_device_get_facts (MithermDevice *self);
/* (nullable) */
const MiModel *mitherm_device_get_model (MithermDevice *self);
/* (nullable): the adapter that heard it best */
const char *mitherm_device_get_adapter (MithermDevice *self);
/* Whether what it advertises now is custom firmware. */
gboolean mitherm_device_is_custom (MithermDevice *self);
MiSigned mitherm_device_get_signed (MithermDevice *self);
/* Keys that may work now: a current or a pending set. */
gboolean mitherm_device_has_keys (MithermDevice *self);
/* (nullable): stored keys and history */
const MithermRecord *mitherm_device_get_record (MithermDevice *self);
/* The stored keys have changed. */
void mitherm_device_keys_changed (MithermDevice *self);

/* Whether it is still the manager's: one that has gone stays in memory while polkit is asked for
 * leave, and its address may be that of another object by then. Errors: MITHERM_ERROR_NOT_FOUND. */
gboolean mitherm_device_check_known (MithermDevice *self, GError **error);

/* The catalogue has changed. */
void mitherm_device_review_update (MithermDevice *self);

/* What jobs have learned; NULL strings and 0 leave what was known. Saved if keys are stored. */
void mitherm_device_set_facts (MithermDevice *self, const MithermFacts *news);
void mitherm_device_set_bound (MithermDevice *self, MithermBound bound);
void mitherm_device_set_auth_version (MithermDevice *self, guint version);

/* The queued or running job; at most one. (transfer none) (nullable) */
MithermJob *mitherm_device_get_job (MithermDevice *self);
void mitherm_device_set_job (MithermDevice *self, MithermJob *job);

/* One listener for raw advertisements (a passive login); NULL: none. */
typedef void (*MithermDeviceAdvertFunc) (MithermDevice *self, const MithermAdvert *advert,
                                         gpointer user_data);
void mitherm_device_set_listener (MithermDevice *self, MithermDeviceAdvertFunc func,
                                  gpointer user_data);

/* Places in the manager's queues: by time of hearing, and of those that have news. */
GList *mitherm_device_get_heard_link (MithermDevice *self);
GList *mitherm_device_get_news_link (MithermDevice *self);

G_END_DECLS
