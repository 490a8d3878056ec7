/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "sim-device.h"

G_BEGIN_DECLS

/* Longest request line taken. */
#define SIM_STDIO_LINE_MAX 65536

/**
 * SimStdio:
 *
 * Front 3: one thermometer as JSON lines with a virtual clock (docs/simulator.md). Speaking and
 * reading are apart, so that tests need no pipe.
 */
typedef struct
{
  SimDevice *device; /* borrowed */
  gint64 now_ms;
} SimStdio;

/**
 * sim_stdio_answer:
 * @line: one request without its line end, any bytes
 *
 * Returns: (transfer full): the answer as one line of JSON, without a line end; never %NULL
 */
char *sim_stdio_answer (SimStdio *self, const char *line, gsize len);

/* Answers standard input until it ends. Returns: exit status of the program */
int sim_stdio_run (SimDevice *device);

G_END_DECLS
