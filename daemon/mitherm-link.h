/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "mi-link.h"

G_BEGIN_DECLS

#define MITHERM_TYPE_LINK (mitherm_link_get_type ())
G_DECLARE_FINAL_TYPE (MithermLink, mitherm_link, MITHERM, LINK, GObject)

typedef enum
{
  MITHERM_LINK_OPEN,
  MITHERM_LINK_DROPPING, /* we asked for the end; BlueZ takes 2 s */
  MITHERM_LINK_CLOSED,
} MithermLinkState;

/* For the radio: the state has changed. The owner of the link hears of CLOSED after it. */
typedef void (*MithermLinkStateFunc) (MithermLink *self, MithermLinkState state,
                                      gpointer user_data);

/**
 * mitherm_link_new:
 * @bus: where org.bluez is
 * @owner: unique name of the bluetoothd that has the connection
 * @device_path: object path of the connected device
 * @characteristics: (transfer full) (element-type MithermCharacteristic): its services
 *
 * A #MiLink over BlueZ's GATT objects. Opcodes and authentication data go through D-Bus calls,
 * which keep their order; the OTA characteristic gets a descriptor, because a call per block
 * costs hundreds of times more. Freed while open, it disconnects.
 */
MithermLink *mitherm_link_new (GDBusConnection *bus, const char *owner, const char *device_path,
                               GPtrArray *characteristics);

void mitherm_link_set_state_func (MithermLink *self, MithermLinkStateFunc func, gpointer user_data);
MithermLinkState mitherm_link_get_state (MithermLink *self);
/* Whether the device knew a handle not: BlueZ has kept the services of an earlier firmware. */
gboolean mitherm_link_is_outdated (MithermLink *self);

/* The radio has seen the end: the device disconnected, or its object or bluetoothd has gone. */
void mitherm_link_lost (MithermLink *self, const char *why);

G_END_DECLS
