/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

/*
 * What the bridge says and hears on MQTT: topics, payloads and commands, as pure functions.
 * The payloads follow Home Assistant's MQTT device discovery and the schema of its update entity.
 */

#define BRIDGE_AVAILABILITY_TOPIC "mitherm/bridge/availability"
#define BRIDGE_ID_LEN             12
#define BRIDGE_PAYLOAD_INSTALL    "install"
#define BRIDGE_PAYLOAD_PRESS      "PRESS"
/* Home Assistant cuts nothing off itself: longer texts make it drop the message. */
#define BRIDGE_TEXT_MAX 255

/* The topics of one thermometer below mitherm/ID/ that carry a retained payload. */
typedef enum
{
  BRIDGE_TOPIC_STATE,
  BRIDGE_TOPIC_UPDATE,
  BRIDGE_TOPIC_PROBLEM,
  BRIDGE_TOPIC_AVAILABILITY,
  BRIDGE_N_TOPICS,
} BridgeTopic;

/* Everything that is told about one thermometer. Strings are never NULL, "" is unknown. */
typedef struct
{
  char id[BRIDGE_ID_LEN + 1]; /* the address without colons, lower case */
  char *address;
  char *name;
  char *model;
  char *hardware;
  char *firmware;
  char *update_version; /* "": nothing newer in the catalogue */
  char *key_state;      /* as Sensor1.KeyState */
  char *last_error;     /* of the last command, for people */
  char *summary;        /* how the last update ended, if not well; for people */
  gboolean has_keys;
  double temperature; /* °C, NaN: unknown */
  double humidity;    /* %, NaN: unknown */
  double voltage;     /* V, NaN: unknown */
  guint battery;      /* %, above 100: unknown */
  int rssi;           /* dBm, 127: unknown */
  gint64 last_seen;   /* microseconds since 1970 UTC, 0: unknown */
  gboolean stale;     /* the readings are too old to be told */
  gboolean low_battery;
  gboolean updating;
  double progress; /* 0 to 1, negative: unknown */
} BridgeThermometer;

/* Sets every field to unknown. @address: "A4:C1:38:00:00:01"; FALSE, if it is none. */
gboolean bridge_thermometer_init (BridgeThermometer *self, const char *address);
void bridge_thermometer_clear (BridgeThermometer *self);

/* Replaces a text field. */
void bridge_set_text (char **field, const char *value);

/* Judges low_battery anew: on at 10 %, off again at 15 %, so that it does not flutter. */
void bridge_thermometer_judge_battery (BridgeThermometer *self);

/* @id: 13 bytes. FALSE, if @address is none. */
gboolean bridge_id_from_address (const char *address, char *id);

/* (transfer full): mitherm/ID/state and so on; PREFIX/device/mitherm_ID/config. */
char *bridge_topic (const char *id, BridgeTopic topic);
char *bridge_config_topic (const char *prefix, const char *id);

/* (transfer full): the payloads, JSON. */
char *bridge_payload_discovery (const BridgeThermometer *self);
char *bridge_payload_state (const BridgeThermometer *self);
char *bridge_payload_update (const BridgeThermometer *self);
char *bridge_payload_problem (const BridgeThermometer *self);

/* Reads a payload of the problem topic back: whether it is one of ours and told of stored keys. */
gboolean bridge_problem_has_keys (const void *payload, gsize len, gboolean *has_keys);

typedef enum
{
  BRIDGE_COMMAND_NONE,
  BRIDGE_COMMAND_INSTALL,
  BRIDGE_COMMAND_CLOCK,
} BridgeCommand;

/*
 * What a message on one of our topics asks for. @id: 13 bytes, the thermometer.
 * BRIDGE_COMMAND_NONE with a static @reason, if it is no command.
 */
BridgeCommand bridge_command_parse (const char *topic, const void *payload, gsize len,
                                    gboolean retained, char *id, const char **reason);

/* mitherm/ID/problem: fills @id (13 bytes). */
gboolean bridge_problem_topic_parse (const char *topic, char *id);

G_END_DECLS
