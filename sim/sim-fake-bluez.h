/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "sim-device.h"

G_BEGIN_DECLS

/*
 * Front 1: a stand-in for org.bluez on a private bus. It answers as BlueZ 5.66 does as a client of
 * thermometers, with its errors and its traps; the thermometers are SimDevices.
 */
typedef struct
{
  const char *bus;     /* address, "system" or "session" */
  GKeyFile *devices;   /* devices file; NULL: @count devices of the usual kind */
  guint count;         /* LYWSD03MMC 1.0.0_0130, A4:C1:38:00:00:01 upward */
  guint adapters;      /* 0 counts as 1 */
  gboolean monitors;   /* offers advertisement monitors, as bluetoothd -E */
  gboolean control;    /* JSON lines on standard input and output */
  MiRandomFunc random; /* the devices' randomness */
  gpointer random_data;
  MiModels *models;          /* borrowed: see sim_device_set_models() */
  guint32 seed;              /* of the air: phases of the advertisements, lost packets */
  guint disconnect_delay_ms; /* what Disconnect() takes; BlueZ: 2000 */
} SimFakeBluezOptions;

/**
 * sim_fake_bluez_run:
 *
 * Serves until SIGINT or SIGTERM, or until the bus goes away. Prints {"event":"ready"} once the
 * name is owned.
 *
 * Returns: exit status of the program; 1 with @error set when it could not start
 */
int sim_fake_bluez_run (const SimFakeBluezOptions *options, GError **error);

G_END_DECLS
