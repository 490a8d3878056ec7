/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "mi-link.h"

G_BEGIN_DECLS

/* A characteristic that we know, as org.bluez shows it. */
typedef struct
{
  guint16 channel; /* MiChannel */
  MiLinkFlags flags;
  guint16 mtu; /* ATT_MTU, 0: not told (BlueZ before 5.62) */
  char *path;
} MithermCharacteristic;

/**
 * mitherm_gatt_channel:
 * @service: UUID of the service
 * @uuid: UUID of the characteristic
 *
 * Returns: its 16-bit channel, 0 if it is none of ours. The same number in another service is not
 *   (protocol/gatt.md sections 1, 3, 4, 6).
 */
guint16 mitherm_gatt_channel (const char *service, const char *uuid);

/**
 * mitherm_gatt_parse:
 * @objects: a{oa{sa{sv}}}, as from GetManagedObjects
 * @device_path: object path of the device
 *
 * Returns: (transfer full) (element-type MithermCharacteristic): what we know below @device_path
 */
GPtrArray *mitherm_gatt_parse (GVariant *objects, const char *device_path);

G_END_DECLS
