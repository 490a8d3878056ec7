/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "mi.h"

G_BEGIN_DECLS

/*
 * One virtual thermometer without I/O: bytes and time in, notifications and events out. All
 * fronts (the stand-in for org.bluez, the GATT peripheral on real BlueZ, --stdio) and the
 * in-memory tests drive this same object.
 */
typedef struct _SimDevice SimDevice;

#define SIM_PACKET_MAX 512

typedef enum
{
  SIM_OUTPUT_NOTIFY,       /* @channel, @data, @len: to the host */
  SIM_OUTPUT_EVENT,        /* @json: {"event": ...}, see contract "Simulator: --stdio" */
  SIM_OUTPUT_DISCONNECTED, /* the device dropped the link; @reason is the HCI reason (0x13) */
  SIM_OUTPUT_ADVERT,       /* name, service data or presence changed: read them again */
  SIM_OUTPUT_GATT,         /* the table of characteristics changed (after a reboot) */
} SimOutputKind;

typedef struct
{
  SimOutputKind kind;
  guint16 channel;
  const guint8 *data; /* valid until the next call on the device */
  gsize len;
  const char *json;
  guint8 reason;
} SimOutput;

/* One characteristic of the device's current table. */
typedef struct
{
  const char *service; /* full UUID, lower case */
  const char *uuid;    /* full UUID, lower case */
  guint16 channel;
  MiLinkFlags flags;
} SimCharacteristic;

/* What is on the air now. */
typedef struct
{
  const char *name; /* nullable */
  guint16 uuid;     /* of the service data, 0: none */
  const guint8 *data;
  gsize len;
  gint16 rssi;
  guint interval_ms;
  gboolean connectable;
} SimAdvert;

/**
 * sim_device_new:
 * @config: a devices file ("Simulator devices file" of docs/simulator.md)
 * @group: which thermometer, "A4:C1:38:00:00:01"
 * @random: the device's randomness
 *
 * Unknown keys and values out of range are errors that name them. FlashFile is loaded if it exists.
 */
SimDevice *sim_device_new (GKeyFile *config, const char *group, MiRandomFunc random,
                           gpointer random_data, GError **error);
void sim_device_free (SimDevice *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (SimDevice, sim_device_free)

/**
 * sim_device_set_models:
 * @models: (nullable): borrowed, outlives the device
 *
 * Images that say no version are looked up here by SHA-256 when the device has booted them.
 */
void sim_device_set_models (SimDevice *self, MiModels *models);

const char *sim_device_get_address (SimDevice *self);

/* @address: upper case with colons; front 2 serves a device under its adapter's address */
void sim_device_set_address (SimDevice *self, const char *address);

/* Connecting while connected, rebooting or frozen is an error. */
gboolean sim_device_connect (SimDevice *self, gint64 now_ms, guint16 att_payload, GError **error);
/* The host dropped the link, or the radio lost it. */
void sim_device_disconnect (SimDevice *self, gint64 now_ms);
gboolean sim_device_is_connected (SimDevice *self);

/* A write by the host (with or without response); FALSE + error: rejected at ATT level. */
gboolean sim_device_write (SimDevice *self, gint64 now_ms, guint16 channel, const guint8 *data,
                           gsize len, GError **error);
/* @out: room for %SIM_PACKET_MAX bytes. MI_ERROR_TIMEOUT: the device gives no answer at all. */
gboolean sim_device_read (SimDevice *self, gint64 now_ms, guint16 channel, guint8 *out, gsize *len,
                          GError **error);

/* Time has passed. */
void sim_device_tick (SimDevice *self, gint64 now_ms);
/* Returns: absolute ms when the next tick is wanted, -1: none */
gint64 sim_device_deadline (SimDevice *self);

/* Takes the next output. Returns: %FALSE when there is none. */
gboolean sim_device_pop (SimDevice *self, SimOutput *out);

/* The table of characteristics now; @n entries, valid until the next SIM_OUTPUT_GATT. */
const SimCharacteristic *sim_device_get_gatt (SimDevice *self, guint *n);
/* Returns: %FALSE while nothing is on the air (connected, rebooting, frozen) */
gboolean sim_device_get_advert (SimDevice *self, gint64 now_ms, SimAdvert *out);

/* Arms one more fault: "drop@5", "cut@N", ... (contract "Simulator devices file"). */
gboolean sim_device_arm_fault (SimDevice *self, const char *spec, GError **error);
/* The battery is taken out and put in again. */
void sim_device_battery (SimDevice *self, gint64 now_ms);
/* Returns: (transfer full): the "state" object of --stdio as JSON text */
char *sim_device_get_state_json (SimDevice *self);

/* Radio model, for fronts that simulate the air: 0 when not set. */
typedef struct
{
  guint interval_ms;
  guint packets_per_event;
  guint loss_permille;
} SimRadio;
void sim_device_get_radio (SimDevice *self, SimRadio *out);

/* For tests: the flash, @size bytes from address 0, and the keys held. */
const guint8 *sim_device_get_flash (SimDevice *self, gsize *size);
gboolean sim_device_get_keys (SimDevice *self, MiKeys *out);
guint32 sim_device_get_running (SimDevice *self); /* address of the running bank */
const char *sim_device_get_version (SimDevice *self);
/* For tests: writes an image into the running bank, as a factory would. */
void sim_device_set_image (SimDevice *self, const guint8 *image, gsize len);

G_END_DECLS
