/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "sim-private.h"

#include <gio/gio.h>
#include <json-glib/json-glib.h>
#include <string.h>

#define SUPERVISION_MS 4000
#define STEPS_MAX      100000 /* of one call: no fault may hang a caller */

typedef struct
{
  SimOutput output;
  guint8 *data;
  char *json;
} OutputItem;

typedef struct
{
  gint64 due_ms;
  SimDirection direction;
  guint16 channel;
  gsize len;
  guint8 data[SIM_PACKET_MAX];
} Packet;

/* Outputs */

static void
output_item_free (gpointer data)
{
  OutputItem *item = data;

  if (item == NULL)
    return;
  g_free (item->data);
  g_free (item->json);
  g_free (item);
}

static OutputItem *
push_output (SimDevice *self, SimOutputKind kind)
{
  OutputItem *item = g_new0 (OutputItem, 1);

  item->output.kind = kind;
  g_queue_push_tail (&self->outputs, item);
  return item;
}

void
sim_device_changed (SimDevice *self, SimOutputKind kind)
{
  push_output (self, kind);
}

void
sim_device_event (SimDevice *self, const char *format, ...)
{
  OutputItem *item = push_output (self, SIM_OUTPUT_EVENT);
  va_list args;

  va_start (args, format);
  item->json = g_strdup_vprintf (format, args);
  va_end (args);
  item->output.json = item->json;
}

gboolean
sim_device_pop (SimDevice *self, SimOutput *out)
{
  OutputItem *item = g_queue_pop_head (&self->outputs);

  output_item_free (self->taken);
  self->taken = item;
  if (item == NULL)
    return FALSE;
  *out = item->output;
  return TRUE;
}

/* Packets and what goes wrong with them */

static void
push_notify (SimDevice *self, guint16 channel, const guint8 *data, gsize len)
{
  OutputItem *item = push_output (self, SIM_OUTPUT_NOTIFY);

  item->data = g_memdup2 (data, len);
  item->output.channel = channel;
  item->output.data = item->data;
  item->output.len = len;
}

static void
dispatch (SimDevice *self, guint16 channel, const guint8 *data, gsize len)
{
  switch (channel)
    {
    case MI_CHANNEL_CONTROL:
      sim_auth_opcode (self, data, len);
      break;
    case MI_CHANNEL_AUTH:
      sim_auth_data (self, data, len);
      break;
    case MI_CHANNEL_DFU_CONTROL:
      sim_dfu_command (self, data, len);
      break;
    case MI_CHANNEL_DFU_DATA:
      sim_dfu_data (self, data, len);
      break;
    case MI_CHANNEL_OTA:
      sim_ota_write (self, data, len);
      break;
    case MI_CHANNEL_EXTENDED:
      sim_ota_extended (self, data, len);
      break;
    default:
      sim_gatt_write (self, channel, data, len);
      break;
    }
}

static void
deliver (SimDevice *self, SimDirection direction, guint16 channel, const guint8 *data, gsize len)
{
  if (direction == SIM_DIRECTION_OUT)
    push_notify (self, channel, data, len);
  else if (self->power == SIM_POWER_ON)
    dispatch (self, channel, data, len);
  else
    g_debug ("%s: silent", self->address);
}

/* A packet behind a delayed one of its direction waits, too: a link keeps the order. */
static gint64
delayed_until (SimDevice *self, SimDirection direction)
{
  gint64 until = -1;

  for (GList *l = self->delayed.head; l != NULL; l = l->next)
    {
      const Packet *packet = l->data;

      if (packet->direction == direction)
        until = MAX (until, packet->due_ms);
    }
  return until;
}

static void
delay_packet (SimDevice *self, SimDirection direction, guint16 channel, const guint8 *data,
              gsize len, gint64 due_ms)
{
  Packet *packet = g_new0 (Packet, 1);

  packet->due_ms = due_ms;
  packet->direction = direction;
  packet->channel = channel;
  packet->len = MIN (len, sizeof packet->data);
  memcpy (packet->data, data, packet->len);
  g_queue_push_tail (&self->delayed, packet);
}

static void
send_on (SimDevice *self, SimDirection direction, guint16 channel, const guint8 *data, gsize len)
{
  gint64 until = delayed_until (self, direction);

  if (until >= 0)
    delay_packet (self, direction, channel, data, len, until);
  else
    deliver (self, direction, channel, data, len);
}

static void
send_corrupted (SimDevice *self, SimDirection direction, guint16 channel, const guint8 *data,
                gsize len)
{
  guint8 copy[SIM_PACKET_MAX];

  len = MIN (len, sizeof copy);
  memcpy (copy, data, len);
  if (len > 0)
    copy[len - 1] ^= 0xff;
  send_on (self, direction, channel, copy, len);
}

static void
strike (SimDevice *self, const SimFault *fault, SimDirection direction, guint16 channel,
        const guint8 *data, gsize len)
{
  switch (fault->kind)
    {
    case SIM_FAULT_DROP:
      break;
    case SIM_FAULT_DOUBLE:
      send_on (self, direction, channel, data, len);
      send_on (self, direction, channel, data, len);
      break;
    case SIM_FAULT_CORRUPT:
      send_corrupted (self, direction, channel, data, len);
      break;
    case SIM_FAULT_DELAY:
      delay_packet (self, direction, channel, data, len,
                    MAX (self->now + fault->value, delayed_until (self, direction)));
      break;
    case SIM_FAULT_CUT:
      send_on (self, direction, channel, data, len);
      sim_device_drop (self, SIM_REASON_TIMEOUT);
      break;
    case SIM_FAULT_REBOOT:
      self->pending = SIM_PENDING_POWER_CYCLE;
      break;
    case SIM_FAULT_BUSY:
    case SIM_FAULT_TIMEOUT:
    case SIM_FAULT_CANCEL:
    case SIM_FAULT_STATUS:
    default:
      break;
    }
}

static void
transmit (SimDevice *self, SimDirection direction, guint16 channel, const guint8 *data, gsize len)
{
  guint *count = direction == SIM_DIRECTION_IN ? &self->packets_in : &self->packets_out;
  SimFault fault;

  if (self->pending != SIM_PENDING_NONE)
    return;
  ++*count;
  if (sim_faults_take_packet (&self->faults, direction, *count,
                              self->packets_in + self->packets_out, &fault))
    strike (self, &fault, direction, channel, data, len);
  else
    send_on (self, direction, channel, data, len);
}

void
sim_device_notify (SimDevice *self, guint16 channel, const guint8 *data, gsize len)
{
  /* What does not fit the link's ATT payload is refused by the device's own stack. */
  if (self->connected && len <= self->att)
    transmit (self, SIM_DIRECTION_OUT, channel, data, len);
}

guint8
sim_device_status (SimDevice *self, guint8 status)
{
  SimFault fault;

  self->statuses++;
  if (sim_faults_take_status (&self->faults, self->statuses, &fault))
    return (guint8) fault.value;
  return status;
}

static void
deliver_delayed (SimDevice *self)
{
  for (GList *l = self->delayed.head; l != NULL;)
    {
      GList *next = l->next;
      Packet *packet = l->data;

      if (packet->due_ms <= self->now && self->pending == SIM_PENDING_NONE)
        {
          g_queue_delete_link (&self->delayed, l);
          deliver (self, packet->direction, packet->channel, packet->data, packet->len);
          g_free (packet);
        }
      l = next;
    }
}

/* Link and power */

static void
link_down (SimDevice *self)
{
  if (!self->connected)
    return;
  self->connected = FALSE;
  g_queue_clear_full (&self->delayed, g_free);
  sim_auth_disconnected (self);
  sim_dfu_disconnected (self);
  sim_ota_disconnected (self);
  sim_device_save (self);
  sim_device_changed (self, SIM_OUTPUT_ADVERT);
}

static void
link_lost (SimDevice *self, guint8 reason)
{
  if (!self->connected)
    return;
  link_down (self);
  sim_device_event (self, "{\"event\":\"disconnect\",\"reason\":%u}", reason);
  push_output (self, SIM_OUTPUT_DISCONNECTED)->output.reason = reason;
}

void
sim_device_drop (SimDevice *self, guint8 reason)
{
  if (self->pending != SIM_PENDING_NONE)
    return;
  self->pending = SIM_PENDING_DROP;
  self->drop_reason = reason;
}

static void
start_boot (SimDevice *self, guint8 reason)
{
  link_lost (self, reason);
  self->power = SIM_POWER_BOOTING;
  self->restart_ms = -1;
  self->drop_ms = -1;
  self->boot_ms = self->now + SIM_BOOT_MS;
  sim_ota_reset (&self->ota);
  sim_dfu_reset (self);
  sim_device_save (self);
  sim_device_changed (self, SIM_OUTPUT_ADVERT);
}

/* Power has gone: what was in RAM is lost before anybody could clean up. */
static void
power_cycle (SimDevice *self)
{
  sim_ota_reset (&self->ota);
  start_boot (self, SIM_REASON_TIMEOUT);
}

static void
settle (SimDevice *self)
{
  SimPending pending = self->pending;

  self->pending = SIM_PENDING_NONE;
  if (pending == SIM_PENDING_POWER_CYCLE)
    power_cycle (self);
  else if (pending == SIM_PENDING_DROP)
    link_lost (self, self->drop_reason);
}

void
sim_device_restart (SimDevice *self, gint64 after_ms)
{
  self->restart_ms = self->now + after_ms;
}

void
sim_device_freeze (SimDevice *self)
{
  self->power = SIM_POWER_FROZEN;
  self->restart_ms = -1;
  self->drop_ms = self->connected ? self->now + SUPERVISION_MS : -1;
  sim_device_event (self, "{\"event\":\"frozen\"}");
  sim_device_save (self);
}

static void
come_up (SimDevice *self)
{
  self->boot_ms = -1;
  if (!sim_flash_boot (self->flash, self->config.banks, self->config.n_banks, &self->running))
    {
      sim_device_freeze (self);
      return;
    }
  self->power = SIM_POWER_ON;
  self->booted_ms = self->now;
  sim_firmware_boot (self);
  sim_advert_boot (self);
  sim_gatt_rebuild (self);
  sim_device_save (self);
  sim_device_event (self, "{\"event\":\"reboot\",\"firmware\":\"%s\"}", self->firmware.answer);
  sim_device_changed (self, SIM_OUTPUT_GATT);
  sim_device_changed (self, SIM_OUTPUT_ADVERT);
}

guint32
sim_device_target (const SimDevice *self)
{
  return self->running == self->config.banks[0] ? self->config.banks[1] : self->config.banks[0];
}

guint32
sim_device_bank_limit (const SimDevice *self, guint32 bank)
{
  if (self->config.extended && bank == SIM_BANK_EXTENDED)
    return SIM_BANK_EXTENDED_LIMIT;
  return self->config.limit;
}

void
sim_device_switch (SimDevice *self, guint32 bank)
{
  sim_flash_mark (self->flash, bank);
  if (sim_flash_is_marked (self->flash, bank))
    sim_flash_unmark (self->flash, self->running);
}

void
sim_device_save (SimDevice *self)
{
  g_autoptr (GError) error = NULL;

  if (self->config.flash_file == NULL)
    return;
  if (!sim_flash_save (self->flash, self->config.flash_file, &error))
    g_warning ("%s: %s", self->address, error->message);
}

void
sim_device_store_keys (SimDevice *self)
{
  guint8 record[MI_TOKEN_LEN + MI_BIND_KEY_LEN];

  if (self->keys.has_did)
    sim_flash_put_record (self->flash, SIM_RECORD_DID, self->keys.did, MI_DID_LEN);
  if (self->has_token)
    {
      memcpy (record, self->keys.token, MI_TOKEN_LEN);
      memcpy (record + MI_TOKEN_LEN, self->keys.bind_key, MI_BIND_KEY_LEN);
      sim_flash_put_record (self->flash, SIM_RECORD_KEYS, record, sizeof record);
      mi_crypto_wipe (record, sizeof record);
    }
  sim_device_save (self);
}

/* A bind key of zeros is none: the devices file may give a token alone, or a bind key alone. */
static void
load_keys (SimDevice *self)
{
  static const guint8 none[MI_BIND_KEY_LEN] = { 0 };
  guint8 record[SIM_RECORD_MAX];

  if (sim_flash_get_record (self->flash, SIM_RECORD_DID, record) == MI_DID_LEN)
    {
      memcpy (self->keys.did, record, MI_DID_LEN);
      self->keys.has_did = TRUE;
    }
  if (sim_flash_get_record (self->flash, SIM_RECORD_KEYS, record) == MI_TOKEN_LEN + MI_BIND_KEY_LEN)
    {
      memcpy (self->keys.token, record, MI_TOKEN_LEN);
      memcpy (self->keys.bind_key, record + MI_TOKEN_LEN, MI_BIND_KEY_LEN);
      self->has_token = TRUE;
    }
  else if (!self->config.has_token)
    memcpy (self->keys.bind_key, self->config.keys.bind_key, MI_BIND_KEY_LEN);
  self->has_bind_key = !mi_crypto_equal (self->keys.bind_key, none, MI_BIND_KEY_LEN);
  mi_crypto_wipe (record, sizeof record);
}

/* Time */

gint64
sim_earlier (gint64 a, gint64 b)
{
  if (a < 0 || b < 0)
    return MAX (a, b);
  return MIN (a, b);
}

static gint64
power_deadline (SimDevice *self)
{
  return sim_earlier (self->boot_ms, sim_earlier (self->restart_ms, self->drop_ms));
}

gint64
sim_device_deadline (SimDevice *self)
{
  gint64 deadline = power_deadline (self);

  for (GList *l = self->delayed.head; l != NULL; l = l->next)
    deadline = sim_earlier (deadline, ((const Packet *) l->data)->due_ms);
  if (self->power != SIM_POWER_ON)
    return deadline;
  deadline = sim_earlier (deadline, sim_auth_deadline (self));
  deadline = sim_earlier (deadline, sim_ota_deadline (self));
  return sim_earlier (deadline, sim_dfu_deadline (self));
}

static gboolean
is_due (SimDevice *self, gint64 time_ms)
{
  return time_ms >= 0 && time_ms <= self->now;
}

static void
step_power (SimDevice *self)
{
  if (is_due (self, self->drop_ms))
    {
      self->drop_ms = -1;
      link_lost (self, SIM_REASON_TIMEOUT);
    }
  if (is_due (self, self->restart_ms))
    start_boot (self, SIM_REASON_TERMINATED);
  if (is_due (self, self->boot_ms))
    come_up (self);
}

static void
step (SimDevice *self)
{
  deliver_delayed (self);
  settle (self);
  step_power (self);
  if (self->power == SIM_POWER_ON)
    sim_auth_tick (self);
  settle (self);
  if (self->power == SIM_POWER_ON)
    sim_ota_tick (self);
  if (self->power == SIM_POWER_ON)
    sim_dfu_tick (self);
  settle (self);
}

static void
advance (SimDevice *self, gint64 now_ms)
{
  for (guint i = 0; i < STEPS_MAX; i++)
    {
      gint64 deadline = sim_device_deadline (self);

      if (deadline < 0 || deadline > now_ms)
        break;
      self->now = MAX (self->now, deadline);
      step (self);
    }
  self->now = MAX (self->now, now_ms);
}

void
sim_device_tick (SimDevice *self, gint64 now_ms)
{
  advance (self, now_ms);
}

/* What the host does */

static gboolean
refuse (GError **error, MiError code, const char *message)
{
  g_set_error_literal (error, MI_ERROR, code, message);
  return FALSE;
}

gboolean
sim_device_connect (SimDevice *self, gint64 now_ms, guint16 att_payload, GError **error)
{
  advance (self, now_ms);
  if (self->power == SIM_POWER_FROZEN)
    return refuse (error, MI_ERROR_LINK_LOST, "the device is frozen");
  if (self->power == SIM_POWER_BOOTING)
    return refuse (error, MI_ERROR_LINK_LOST, "the device restarts");
  if (self->connected)
    return refuse (error, MI_ERROR_INVALID_ARGUMENT, "connected already");
  if (att_payload < 20 || att_payload > SIM_PACKET_MAX)
    return refuse (error, MI_ERROR_INVALID_ARGUMENT, "the ATT payload is not 20 to 512");
  self->connected = TRUE;
  self->att = att_payload;
  self->packets_in = self->packets_out = self->statuses = 0;
  sim_auth_connected (self);
  sim_device_changed (self, SIM_OUTPUT_ADVERT);
  return TRUE;
}

void
sim_device_disconnect (SimDevice *self, gint64 now_ms)
{
  advance (self, now_ms);
  self->drop_ms = -1;
  link_down (self);
}

gboolean
sim_device_is_connected (SimDevice *self)
{
  return self->connected;
}

static gboolean
check_write (SimDevice *self, guint16 channel, gsize len, GError **error)
{
  const SimCharacteristic *characteristic = sim_gatt_find (self, channel);

  if (!self->connected)
    return refuse (error, MI_ERROR_LINK_LOST, "not connected");
  if (characteristic == NULL)
    return refuse (error, MI_ERROR_IO, "no such characteristic");
  if ((characteristic->flags & (MI_LINK_WRITE | MI_LINK_WRITE_COMMAND)) == 0)
    return refuse (error, MI_ERROR_IO, "write not permitted");
  if (len > self->att)
    return refuse (error, MI_ERROR_INVALID_ARGUMENT, "longer than the ATT payload");
  if (channel == MI_CHANNEL_DFU_CONTROL && !self->auth.logged_in)
    return refuse (error, MI_ERROR_IO, "not logged in");
  return TRUE;
}

gboolean
sim_device_write (SimDevice *self, gint64 now_ms, guint16 channel, const guint8 *data, gsize len,
                  GError **error)
{
  advance (self, now_ms);
  if (!check_write (self, channel, len, error))
    return FALSE;
  if (self->power == SIM_POWER_ON)
    transmit (self, SIM_DIRECTION_IN, channel, data, len);
  settle (self);
  return TRUE;
}

gboolean
sim_device_read (SimDevice *self, gint64 now_ms, guint16 channel, guint8 *out, gsize *len,
                 GError **error)
{
  const SimCharacteristic *characteristic;

  advance (self, now_ms);
  characteristic = sim_gatt_find (self, channel);
  if (!self->connected)
    return refuse (error, MI_ERROR_LINK_LOST, "not connected");
  if (self->power != SIM_POWER_ON)
    return refuse (error, MI_ERROR_TIMEOUT, "no answer");
  if (characteristic == NULL)
    return refuse (error, MI_ERROR_IO, "no such characteristic");
  if ((characteristic->flags & MI_LINK_READ) == 0)
    return refuse (error, MI_ERROR_IO, "read not permitted");
  if (channel != MI_CHANNEL_OTA)
    return sim_gatt_read (self, channel, out, len, error);
  out[0] = sim_ota_read (self);
  *len = 1;
  return TRUE;
}

void
sim_device_battery (SimDevice *self, gint64 now_ms)
{
  advance (self, now_ms);
  power_cycle (self);
}

gboolean
sim_device_arm_fault (SimDevice *self, const char *spec, GError **error)
{
  return sim_faults_arm (&self->faults, spec, error);
}

/* State */

static void
add_hex (JsonBuilder *json, const char *name, gboolean present, const guint8 *data, gsize len)
{
  g_autofree char *hex = present ? mi_hex_encode (data, len) : NULL;

  json_builder_set_member_name (json, name);
  if (hex != NULL)
    json_builder_add_string_value (json, hex);
  else
    json_builder_add_null_value (json);
}

static void
add_text (JsonBuilder *json, const char *name, const char *text)
{
  json_builder_set_member_name (json, name);
  if (text != NULL)
    json_builder_add_string_value (json, text);
  else
    json_builder_add_null_value (json);
}

static void
add_bank (SimDevice *self, JsonBuilder *json, guint32 address)
{
  guint32 limit = sim_device_bank_limit (self, address);
  guint32 written = sim_flash_get_written (self->flash, address, limit);
  g_autofree guint8 *image = sim_flash_dup (self->flash, address, limit);
  guint32 size = mi_get_u32 (image + SIM_IMAGE_SIZE);
  guint8 digest[32];

  if (written < SIM_IMAGE_SIZE + 4 || size < MI_IMAGE_MIN_SIZE || size > limit)
    return;
  memcpy (image + SIM_IMAGE_MARK, "KNLT", 4);
  if (!mi_crypto_sha256 (image, size, digest, NULL))
    return;
  json_builder_begin_object (json);
  json_builder_set_member_name (json, "address");
  json_builder_add_int_value (json, address);
  add_hex (json, "sha256", TRUE, digest, sizeof digest);
  json_builder_set_member_name (json, "size");
  json_builder_add_int_value (json, size);
  json_builder_set_member_name (json, "written");
  json_builder_add_int_value (json, written);
  json_builder_end_object (json);
}

char *
sim_device_get_state_json (SimDevice *self)
{
  g_autoptr (JsonBuilder) json = json_builder_new ();
  g_autofree char *did = self->keys.has_did ? mi_did_to_text (self->keys.did) : NULL;
  g_autoptr (JsonNode) root = NULL;

  json_builder_begin_object (json);
  add_text (json, "firmware", self->firmware.answer);
  add_text (json, "version", self->firmware.version);
  json_builder_set_member_name (json, "registered");
  json_builder_add_boolean_value (json, self->has_token);
  json_builder_set_member_name (json, "logged_in");
  json_builder_add_boolean_value (json, self->connected && self->auth.logged_in);
  json_builder_set_member_name (json, "auth_version");
  json_builder_add_int_value (json, self->firmware.auth_version);
  add_hex (json, "token", self->has_token, self->keys.token, MI_TOKEN_LEN);
  add_hex (json, "bind_key", self->has_bind_key, self->keys.bind_key, MI_BIND_KEY_LEN);
  add_text (json, "did", did);
  json_builder_set_member_name (json, "frozen");
  json_builder_add_boolean_value (json, self->power == SIM_POWER_FROZEN);
  json_builder_set_member_name (json, "running");
  json_builder_add_int_value (json, self->running);
  json_builder_set_member_name (json, "banks");
  json_builder_begin_array (json);
  for (guint i = 0; i < self->config.n_banks; i++)
    add_bank (self, json, self->config.banks[i]);
  json_builder_end_array (json);
  json_builder_end_object (json);
  root = json_builder_get_root (json);
  return json_to_string (root, FALSE);
}

/* Life */

void
sim_device_set_models (SimDevice *self, MiModels *models)
{
  self->models = models;
}

const char *
sim_device_get_address (SimDevice *self)
{
  return self->address;
}

void
sim_device_set_address (SimDevice *self, const char *address)
{
  g_return_if_fail (address != NULL);

  g_free (self->address);
  self->address = g_ascii_strup (address, -1);
  if (!mi_address_parse (address, self->mac))
    memset (self->mac, 0, sizeof self->mac);
  sim_device_changed (self, SIM_OUTPUT_ADVERT);
}

static void
leave_factory (SimDevice *self)
{
  g_autoptr (GBytes) image = sim_firmware_build (&self->config);
  gsize len;
  const guint8 *data = g_bytes_get_data (image, &len);

  sim_firmware_from_config (&self->firmware, &self->config);
  self->firmware.auth_version = self->config.auth_version;
  self->firmware.enforce = self->config.enforce;
  sim_flash_program (self->flash, self->config.banks[0], data, len);
  self->keys = self->config.keys;
  self->has_token = self->config.has_token;
  self->has_bind_key = self->config.has_bind_key;
  sim_device_store_keys (self);
}

static gboolean
load_flash (SimDevice *self, GError **error)
{
  const char *path = self->config.flash_file;

  if (path == NULL || !g_file_test (path, G_FILE_TEST_EXISTS))
    {
      leave_factory (self);
      return TRUE;
    }
  if (!sim_flash_load (self->flash, path, error))
    return FALSE;
  sim_firmware_from_config (&self->firmware, &self->config);
  self->firmware.auth_version = self->config.auth_version;
  self->firmware.enforce = self->config.enforce;
  load_keys (self);
  return TRUE;
}

static gboolean
first_start (SimDevice *self, GError **error)
{
  if (!load_flash (self, error))
    return FALSE;
  if (!sim_flash_boot (self->flash, self->config.banks, self->config.n_banks, &self->running))
    {
      g_set_error (error, MI_ERROR, MI_ERROR_BAD_IMAGE, "%s: no bank holds a bootable image",
                   self->config.flash_file);
      return FALSE;
    }
  sim_firmware_boot (self);
  sim_advert_boot (self);
  sim_gatt_rebuild (self);
  sim_device_save (self);
  return TRUE;
}

SimDevice *
sim_device_new (GKeyFile *config, const char *group, MiRandomFunc random, gpointer random_data,
                GError **error)
{
  g_autoptr (SimDevice) self = g_new0 (SimDevice, 1);

  g_return_val_if_fail (config != NULL && group != NULL && random != NULL, NULL);

  self->random = random;
  self->random_data = random_data;
  self->restart_ms = self->boot_ms = self->drop_ms = -1;
  g_queue_init (&self->outputs);
  g_queue_init (&self->delayed);
  sim_faults_init (&self->faults);
  sim_ota_reset (&self->ota);
  sim_dfu_init (&self->dfu);
  self->auth.work_ms = self->auth.limit_ms = -1;
  self->flash = sim_flash_new ();
  self->gatt = g_array_new (FALSE, FALSE, sizeof (SimCharacteristic));
  sim_device_set_address (self, group);
  g_queue_clear_full (&self->outputs, output_item_free);
  if (!sim_config_read (&self->config, config, group, &self->faults, error))
    return NULL;
  if (!first_start (self, error))
    return NULL;
  return g_steal_pointer (&self);
}

void
sim_device_free (SimDevice *self)
{
  if (self == NULL)
    return;
  link_down (self);
  if (self->address != NULL && self->flash != NULL)
    sim_device_save (self);
  g_queue_clear_full (&self->outputs, output_item_free);
  g_queue_clear_full (&self->delayed, g_free);
  output_item_free (self->taken);
  sim_dfu_reset (self);
  sim_faults_clear (&self->faults);
  sim_firmware_clear (&self->firmware);
  g_clear_pointer (&self->gatt, g_array_unref);
  g_clear_pointer (&self->flash, sim_flash_free);
  g_free (self->flash_copy);
  g_free (self->name);
  g_free (self->address);
  sim_config_clear (&self->config);
  mi_keys_clear (&self->keys);
  g_free (self);
}

/* For the fronts and tests */

void
sim_device_get_radio (SimDevice *self, SimRadio *out)
{
  *out = self->config.radio;
}

const guint8 *
sim_device_get_flash (SimDevice *self, gsize *size)
{
  g_free (self->flash_copy);
  self->flash_copy = sim_flash_dup (self->flash, 0, SIM_FLASH_SIZE);
  *size = SIM_FLASH_SIZE;
  return self->flash_copy;
}

gboolean
sim_device_get_keys (SimDevice *self, MiKeys *out)
{
  *out = self->keys;
  return self->has_token;
}

guint32
sim_device_get_running (SimDevice *self)
{
  return self->running;
}

const char *
sim_device_get_version (SimDevice *self)
{
  return self->firmware.answer;
}

void
sim_device_set_image (SimDevice *self, const guint8 *image, gsize len)
{
  g_return_if_fail (len <= self->config.limit);

  sim_flash_erase (self->flash, self->running, sim_device_bank_limit (self, self->running));
  sim_flash_program (self->flash, self->running, image, len);
  sim_firmware_installed (self);
  sim_gatt_rebuild (self);
  sim_device_changed (self, SIM_OUTPUT_GATT);
  sim_device_changed (self, SIM_OUTPUT_ADVERT);
}
