/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "sim-device.h"

G_BEGIN_DECLS

/*
 * Front 2: one thermometer as a GATT peripheral on an adapter of a real bluetoothd. It uses the
 * adapter's address as its own.
 */
typedef struct
{
  const char *adapter; /* "hci1" */
  const char *bus;     /* where bluetoothd is: address or NULL, the system bus */
  GKeyFile *devices;   /* devices file with one group */
  gboolean control;    /* JSON lines on standard input and output */
  MiRandomFunc random;
  gpointer random_data;
  MiModels *models; /* borrowed: see sim_device_set_models() */
} SimPeripheralOptions;

/**
 * sim_peripheral_run:
 *
 * Serves until SIGINT or SIGTERM, or until bluetoothd goes away. Prints {"event":"ready"} when it
 * advertises for the first time.
 *
 * Returns: exit status of the program; 1 with @error set when it could not start
 */
int sim_peripheral_run (const SimPeripheralOptions *options, GError **error);

G_END_DECLS
