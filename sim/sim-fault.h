/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

/* What goes wrong (docs/simulator.md, "Faults"). */
typedef enum
{
  SIM_FAULT_DROP,
  SIM_FAULT_DOUBLE,
  SIM_FAULT_CORRUPT,
  SIM_FAULT_DELAY,
  SIM_FAULT_CUT,
  SIM_FAULT_BUSY,
  SIM_FAULT_TIMEOUT,
  SIM_FAULT_CANCEL,
  SIM_FAULT_REBOOT,
  SIM_FAULT_STATUS,
} SimFaultKind;

typedef enum
{
  SIM_DIRECTION_ANY,
  SIM_DIRECTION_IN,  /* ">": from the host to the device */
  SIM_DIRECTION_OUT, /* "<": from the device to the host */
} SimDirection;

typedef struct
{
  SimFaultKind kind;
  SimDirection direction;
  guint position; /* number of the packet from 1, or the message type */
  guint value;    /* ms of a delay, code of a status */
} SimFault;

/* Armed faults; each happens once. */
typedef struct
{
  GArray *items;
} SimFaults;

void sim_faults_init (SimFaults *self);
void sim_faults_clear (SimFaults *self);

/* Returns: %FALSE with a text that names the spec */
gboolean sim_fault_parse (const char *spec, SimFault *out, GError **error);
gboolean sim_faults_arm (SimFaults *self, const char *spec, GError **error);

/**
 * sim_faults_take_packet:
 * @direction: %SIM_DIRECTION_IN or %SIM_DIRECTION_OUT
 * @number: of the packet among those of its direction, from 1 on each connection
 * @total: of the packet among those of both directions
 *
 * Takes the first fault out of the list that strikes this packet (every kind but those that are
 * about message types and statuses).
 */
gboolean sim_faults_take_packet (SimFaults *self, SimDirection direction, guint number, guint total,
                                 SimFault *out);
/* The fault that answers an announce of message @type. */
gboolean sim_faults_take_message (SimFaults *self, guint8 type, SimFault *out);
/* The fault that changes status @number of this connection. */
gboolean sim_faults_take_status (SimFaults *self, guint number, SimFault *out);

G_END_DECLS
