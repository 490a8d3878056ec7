/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "bridge-config.h"

#include <gio/gio.h>

G_BEGIN_DECLS

/* The bridge: thermometers from the bus to the broker, commands from the broker to the bus. */
typedef struct _Bridge Bridge;

/* @config: must outlive it. */
Bridge *bridge_new (const BridgeConfig *config, GDBusConnection *connection, GError **error);
void bridge_free (Bridge *self);

/* @refused: called each time the broker refuses user and password. */
void bridge_on_refused (Bridge *self, GSourceFunc refused, gpointer data);

/* Says goodbye to the broker, then calls @done. */
void bridge_stop (Bridge *self, GSourceFunc done, gpointer data);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (Bridge, bridge_free)

G_END_DECLS
