/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "bridge-mqtt.h"
#include "bridge-payload.h"

G_BEGIN_DECLS

#define BRIDGE_N_COMMANDS (BRIDGE_COMMAND_CLOCK + 1)

/* One thermometer: what is known, what has been told to the broker, what it is asked to do. */
typedef struct
{
  BridgeThermometer told;
  char *path;          /* on the bus */
  gboolean present;    /* there now */
  gint64 absent_since; /* monotonic */
  gboolean online;     /* its entities are available */
  gboolean forgotten;  /* has no entities until it has keys again */
  gboolean measured;   /* has a Sensor1 */

  char *job;                             /* as Device1.Job; "/": none */
  char *started;                         /* the job that a command of ours started; NULL: none */
  BridgeCommand calling;                 /* method call under way */
  BridgeCommand running;                 /* what started is */
  gint64 waits_until[BRIDGE_N_COMMANDS]; /* commands that wait for the daemon; 0: none */
  gint64 taken[BRIDGE_N_COMMANDS];       /* when the last one was taken; 0: never */
  gint64 read_us;                        /* when its version was asked for; 0: never */
  char *complaint;                       /* as last logged */
  gint64 complaint_us;

  /* The rest belongs to bridge-item.c. */
  gboolean retracted; /* the broker has taken that there is nothing any more */
  BridgeMqtt *mqtt;
  const char *prefix;
  char *config_sent; /* its checksum */
  char *sent[BRIDGE_N_TOPICS];
  gint64 sent_us[BRIDGE_N_TOPICS];
  BridgeThermometer readings_sent; /* numbers only */
  gboolean updating_sent;
  char *versions_sent;
  guint flush_id;
  gint64 flush_at;
} BridgeItem;

/* @mqtt, @prefix: must outlive it. NULL, if @address is none. */
BridgeItem *bridge_item_new (const char *address, const char *path, BridgeMqtt *mqtt,
                             const char *prefix);
void bridge_item_free (BridgeItem *self);

/*
 * Tells the broker what has changed: states and percentages at most once a second; of a forgotten
 * thermometer, that there is nothing. Does nothing without a connection.
 */
void bridge_item_publish (BridgeItem *self);

/* Tells everything, whatever was told before. */
void bridge_item_publish_again (BridgeItem *self);

/* Takes the entities and all retained topics of a forgotten thermometer away, now or when it can.
 */
void bridge_item_retract (BridgeItem *self);

/* The same for a thermometer that is known by its id alone. FALSE: not everything could be sent. */
gboolean bridge_item_retract_id (BridgeMqtt *mqtt, const char *prefix, const char *id);

G_END_DECLS
