/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <gio/gio.h>

G_BEGIN_DECLS

/*
 * The daemon's objects as they come and go on the bus: org.mitherm, whoever owns it now. Signals of
 * one owner only are passed on; after a restart of the daemon everything is told anew.
 */

typedef struct _BridgeBus BridgeBus;

typedef struct
{
  /* TRUE: all objects there are have been told. FALSE: the daemon is gone, and what it has
   * told with it, be it all or not. */
  void (*on_daemon) (gboolean running, gpointer data);
  /* @properties (a{sv}): all of a new interface, or those that have changed. */
  void (*on_properties) (const char *path, const char *interface, GVariant *properties,
                         gpointer data);
  void (*on_removed) (const char *path, const char *const *interfaces, gpointer data);
  /* A signal of Device1, Sensor1 or Job1. */
  void (*on_signal) (const char *path, const char *interface, const char *name,
                     GVariant *parameters, gpointer data);
} BridgeBusCallbacks;

/* @callbacks: must outlive it. */
BridgeBus *bridge_bus_new (GDBusConnection *connection, const BridgeBusCallbacks *callbacks,
                           gpointer data);
void bridge_bus_free (BridgeBus *self);

gboolean bridge_bus_is_running (BridgeBus *self);

/*
 * Calls a method of Device1 that returns (o). @parameters: (nullable) floating; NULL: the method
 * takes none.
 */
void bridge_bus_call_job (BridgeBus *self, const char *path, const char *method,
                          GVariant *parameters, GCancellable *cancellable,
                          GAsyncReadyCallback callback, gpointer data);
/* (transfer full): the job's path. */
char *bridge_bus_call_job_finish (GAsyncResult *result, GError **error);

/* The call cannot have reached a daemon. */
gboolean bridge_bus_never_arrived (const GError *error);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (BridgeBus, bridge_bus_free)

G_END_DECLS
