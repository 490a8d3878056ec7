/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "bridge-config.h"

G_BEGIN_DECLS

/*
 * One connection to the broker, driven by the default main context; libmosquitto's own thread is
 * not used. Comes back by itself after every loss. Nothing is queued while there is no connection:
 * whoever publishes tells everything again when on_connected is called.
 */

typedef struct _BridgeMqtt BridgeMqtt;

/* How a message came. */
typedef enum
{
  BRIDGE_ARRIVAL_NEW,      /* sent while we are connected */
  BRIDGE_ARRIVAL_RETAINED, /* stored by the broker for every subscriber */
  BRIDGE_ARRIVAL_KEPT,     /* kept for us while we were away for at most a minute */
  BRIDGE_ARRIVAL_OLD,      /* kept for us for longer */
} BridgeArrival;

typedef struct
{
  void (*on_connected) (gpointer data);
  /* The retained messages of the subscriptions have come, as far as the broker had them. */
  void (*on_settled) (gpointer data);
  /* @topic and @payload are borrowed. */
  void (*on_message) (const char *topic, const void *payload, gsize len, BridgeArrival arrival,
                      gpointer data);
  /* Messages were dropped because the broker took none; now it does: tell everything again. */
  void (*on_drained) (gpointer data);
  /* The broker has refused user and password; it is tried again all the same. */
  void (*on_refused) (gpointer data);
} BridgeMqttCallbacks;

/* @config, @callbacks: must outlive it. @will_topic: gets "offline", retained, when we are gone. */
BridgeMqtt *bridge_mqtt_new (const BridgeConfig *config, const char *will_topic,
                             const BridgeMqttCallbacks *callbacks, gpointer data, GError **error);
void bridge_mqtt_free (BridgeMqtt *self);

/*
 * Before the start: what is subscribed at every connection. @once: only until on_settled. QoS 1
 * where it matters how a message came: with 2, the last step of one that was kept comes after
 * those that are new.
 */
void bridge_mqtt_subscribe (BridgeMqtt *self, const char *topic, int qos, gboolean once);

void bridge_mqtt_start (BridgeMqtt *self);

/* Ends the connection in order, after what was published has left; calls @done, within 2 s. */
void bridge_mqtt_stop (BridgeMqtt *self, GSourceFunc done, gpointer data);

gboolean bridge_mqtt_is_connected (BridgeMqtt *self);

/* QoS 1. FALSE: not sent. */
gboolean bridge_mqtt_publish (BridgeMqtt *self, const char *topic, const char *payload,
                              gboolean retain);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (BridgeMqtt, bridge_mqtt_free)

G_END_DECLS
