/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "mi.h"

G_BEGIN_DECLS

/* What the command line of mitherm-sim says; every front takes its part of it. */
typedef struct
{
  gboolean stdio;      /* front 3 */
  gboolean fake_bluez; /* front 1 */
  char *bluez;         /* front 2: adapter name, "hci1" */
  char *bus;         /* front 1: bus that gets org.bluez; front 2: bus that has it, NULL: system */
  char *device;      /* front 3: which group of the devices file */
  char *devices;     /* path of the devices file */
  int count;         /* front 1: so many devices by default values, 0: as the devices file says */
  int adapters;      /* front 1: hci0 and so on, 0 counts as 1 */
  gboolean monitors; /* front 1: as bluetoothd -E */
  int disconnect_delay_ms; /* front 1: how long Disconnect() takes */
  gboolean control;        /* fronts 1 and 2: JSON lines on standard input and output */
  gboolean version;        /* asked for, nothing else counts */
  gboolean has_seed;       /* @seed was given: deterministic randomness */
  gint64 seed;
} SimOptions;

/**
 * SimRandom:
 *
 * Deterministic randomness: byte stream of SHA-256 (seed ‖ n) for n = 0, 1, 2, ..., seed and n as
 * 64 bits little-endian. Not for secrets.
 */
typedef struct
{
  guint64 seed;
  guint64 counter;
  guint8 block[32];
  gsize used; /* bytes of @block that are gone */
} SimRandom;

void sim_random_init (SimRandom *self, guint64 seed);
/* A #MiRandomFunc; @user_data: a #SimRandom. */
gboolean sim_random_draw (guint8 *out, gsize len, gpointer user_data);

G_END_DECLS
