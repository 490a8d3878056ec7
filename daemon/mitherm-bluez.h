/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "mitherm-radio.h"

G_BEGIN_DECLS

#define MITHERM_TYPE_BLUEZ (mitherm_bluez_get_type ())
G_DECLARE_FINAL_TYPE (MithermBluez, mitherm_bluez, MITHERM, BLUEZ, GObject)

/**
 * mitherm_bluez_new:
 * @connection: the bus on which org.bluez lives (or will, or comes back)
 *
 * The radio on BlueZ. Works without a running bluetoothd: adapters appear when it does.
 */
MithermRadio *mitherm_bluez_new (GDBusConnection *connection);

/**
 * mitherm_bluez_set_adapters:
 * @names: (nullable): "hci0", ...: no other adapter is used; %NULL or empty: all
 *
 * To be called before the main loop runs.
 */
void mitherm_bluez_set_adapters (MithermBluez *self, const char *const *names);

/**
 * MithermDiscoverySettings:
 * @passive: listen by an advertisement monitor where bluetoothd offers that
 * @full_s: seconds of uninterrupted active discovery after it was turned on
 * @duty: share of the time of active discovery after that, percent; 0: none, 100: always
 * @period_s: seconds of one turn of discovery and rest
 */
typedef struct
{
  gboolean passive;
  guint full_s;
  guint duty;
  guint period_s;
} MithermDiscoverySettings;

#define MITHERM_DISCOVERY_SETTINGS_INIT                                                            \
  {                                                                                                \
    TRUE, 60, 80, 30                                                                               \
  }

/* To be called before the main loop runs. */
void mitherm_bluez_set_discovery (MithermBluez *self, const MithermDiscoverySettings *settings);

G_END_DECLS
