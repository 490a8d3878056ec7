/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "sim-private.h"

#include <stdio.h>
#include <string.h>

#define BASE(part)   "0000" part "-0000-1000-8000-00805f9b34fb"
#define THERMO(part) "ebe0" part "-7a0a-4b0c-8a1a-6ff2997da3a6"
#define TELINK(part) "00010203-0405-0607-0809-0a0b0c0d" part

#define CHANNEL_UNIT       0xccbe
#define CHANNEL_DISCONNECT 0xccc8

/* Which table a characteristic is part of. */
typedef enum
{
  PART_INFO,
  PART_MI,
  PART_DFU,
  PART_TELINK,
  PART_THERMO,
  PART_BATTERY,
  PART_INTERVAL,
  PART_CUSTOM,
} Part;

/* protocol/gatt.md sections 1, 3, 4, 5, 6 */
static const struct
{
  Part part;
  SimCharacteristic characteristic;
} table[] = {
  { PART_INFO, { BASE ("180a"), BASE ("2a24"), MI_CHANNEL_MODEL, MI_LINK_READ } },
  { PART_INFO, { BASE ("180a"), BASE ("2a25"), MI_CHANNEL_SERIAL, MI_LINK_READ } },
  { PART_INFO, { BASE ("180a"), BASE ("2a26"), MI_CHANNEL_FIRMWARE, MI_LINK_READ } },
  { PART_INFO, { BASE ("180a"), BASE ("2a27"), MI_CHANNEL_HARDWARE, MI_LINK_READ } },
  { PART_INFO, { BASE ("180a"), BASE ("2a28"), MI_CHANNEL_SOFTWARE, MI_LINK_READ } },
  { PART_INFO, { BASE ("180a"), BASE ("2a29"), MI_CHANNEL_MANUFACTURER, MI_LINK_READ } },
  { PART_MI, { BASE ("fe95"), BASE ("0004"), MI_CHANNEL_VERSION, MI_LINK_READ } },
  { PART_MI,
    { BASE ("fe95"), BASE ("0010"), MI_CHANNEL_CONTROL, MI_LINK_WRITE_COMMAND | MI_LINK_NOTIFY } },
  { PART_DFU,
    { BASE ("fe95"), BASE ("0017"), MI_CHANNEL_DFU_CONTROL,
      MI_LINK_WRITE | MI_LINK_WRITE_COMMAND | MI_LINK_NOTIFY } },
  { PART_DFU,
    { BASE ("fe95"), BASE ("0018"), MI_CHANNEL_DFU_DATA, MI_LINK_WRITE_COMMAND | MI_LINK_NOTIFY } },
  { PART_MI,
    { BASE ("fe95"), BASE ("0019"), MI_CHANNEL_AUTH, MI_LINK_WRITE_COMMAND | MI_LINK_NOTIFY } },
  { PART_TELINK,
    { TELINK ("1912"), TELINK ("2b12"), MI_CHANNEL_OTA, MI_LINK_READ | MI_LINK_WRITE_COMMAND } },
  { PART_THERMO,
    { THERMO ("ccb0"), THERMO ("ccb7"), MI_CHANNEL_TIME, MI_LINK_READ | MI_LINK_WRITE } },
  { PART_THERMO, { THERMO ("ccb0"), THERMO ("ccbe"), CHANNEL_UNIT, MI_LINK_READ | MI_LINK_WRITE } },
  { PART_THERMO,
    { THERMO ("ccb0"), THERMO ("ccc1"), MI_CHANNEL_MEASUREMENT, MI_LINK_READ | MI_LINK_NOTIFY } },
  { PART_BATTERY, { THERMO ("ccb0"), THERMO ("ccc4"), MI_CHANNEL_BATTERY, MI_LINK_READ } },
  { PART_THERMO, { THERMO ("ccb0"), THERMO ("ccc8"), CHANNEL_DISCONNECT, MI_LINK_WRITE } },
  { PART_INTERVAL, { THERMO ("ccb0"), THERMO ("ccd8"), MI_CHANNEL_INTERVAL, MI_LINK_WRITE } },
  { PART_CUSTOM,
    { BASE ("1f10"), BASE ("1f1f"), MI_CHANNEL_EXTENDED,
      MI_LINK_READ | MI_LINK_WRITE_COMMAND | MI_LINK_NOTIFY } },
};

static gboolean
has_part (SimDevice *self, Part part)
{
  const SimModel *model = self->config.model;
  gboolean custom = sim_firmware_is_custom (self);

  switch (part)
    {
    case PART_INFO:
      return TRUE;
    case PART_MI:
      return self->firmware.auth_version > 0;
    case PART_DFU:
      return self->firmware.auth_version > 0 && self->config.dfu > 0;
    case PART_TELINK:
      return custom || self->config.telink;
    case PART_THERMO:
      return !custom;
    case PART_BATTERY:
      return !custom && model->has_battery;
    case PART_INTERVAL:
      return !custom && model->has_interval;
    case PART_CUSTOM:
    default:
      return custom;
    }
}

const SimCharacteristic *
sim_device_get_gatt (SimDevice *self, guint *n)
{
  *n = self->gatt->len;
  return (const SimCharacteristic *) (gpointer) self->gatt->data;
}

const SimCharacteristic *
sim_gatt_find (SimDevice *self, guint16 channel)
{
  for (guint i = 0; i < self->gatt->len; i++)
    {
      const SimCharacteristic *item = &g_array_index (self->gatt, SimCharacteristic, i);

      if (item->channel == channel)
        return item;
    }
  return NULL;
}

/* Values */

/* "0130" of "1.0.0_0130"; the text itself if it has no build */
static const char *
build_of (const char *version)
{
  const char *build = strrchr (version, '_');

  return build != NULL ? build + 1 : version;
}

/* Returns: (nullable): the text of a characteristic; NULL: the device has none */
static const char *
get_text (SimDevice *self, guint16 channel)
{
  const SimModel *model = self->config.model;
  const char *version = self->firmware.answer;
  gboolean stock = self->firmware.body == MI_IMAGE_STOCK;

  switch (channel)
    {
    case MI_CHANNEL_MODEL:
      return model->name;
    case MI_CHANNEL_SERIAL:
      return self->config.serial;
    case MI_CHANNEL_HARDWARE:
      return self->config.hardware;
    case MI_CHANNEL_MANUFACTURER:
      return sim_firmware_is_custom (self) ? "github.com/pvvx" : model->manufacturer;
    case MI_CHANNEL_FIRMWARE:
      return stock && model->build_only ? build_of (version) : version;
    case MI_CHANNEL_SOFTWARE:
      if (sim_firmware_is_custom (self))
        return version;
      return stock && model->build_in_sw ? build_of (version) : NULL;
    case MI_CHANNEL_VERSION:
      return version;
    default:
      return NULL;
    }
}

void
sim_gatt_rebuild (SimDevice *self)
{
  g_array_set_size (self->gatt, 0);
  for (gsize i = 0; i < G_N_ELEMENTS (table); i++)
    {
      if (!has_part (self, table[i].part))
        continue;
      if (table[i].part == PART_INFO && get_text (self, table[i].characteristic.channel) == NULL)
        continue;
      g_array_append_val (self->gatt, table[i].characteristic);
    }
}

/* LYWSD03MMC counts from power-on; clocks hold Unix time and zone, seconds going on since. */
static gsize
read_time (SimDevice *self, guint8 *out)
{
  guint32 passed = (guint32) ((self->now - self->time_set_ms) / 1000);
  gsize len = self->time_len;

  if (len == 0)
    {
      len = self->config.model->is_clock ? 5 : 4;
      memset (out, 0, len);
      mi_put_u32 (out, (guint32) ((self->now - self->booted_ms) / 1000));
      return len;
    }
  memcpy (out, self->time, len);
  mi_put_u32 (out, mi_get_u32 (self->time) + passed);
  return len;
}

static gsize
read_measurement (SimDevice *self, guint8 *out)
{
  SimMeasurement m;

  sim_measure (self, &m);
  if (self->config.model->wide_values)
    {
      mi_put_u16 (out, (guint16) (m.temperature / 10));
      mi_put_u16 (out + 2, (guint16) (m.humidity / 10));
      mi_put_u16 (out + 4, (guint16) m.millivolts);
      return 6;
    }
  mi_put_u16 (out, (guint16) m.temperature);
  out[2] = (guint8) (m.humidity / 100);
  mi_put_u16 (out + 3, (guint16) m.millivolts);
  return 5;
}

static gboolean
read_text (SimDevice *self, guint16 channel, guint8 *out, gsize *len, GError **error)
{
  const char *text = get_text (self, channel);

  if (text == NULL)
    {
      g_set_error (error, MI_ERROR, MI_ERROR_IO, "%04x: attribute not found", channel);
      return FALSE;
    }
  *len = strlen (text);
  memcpy (out, text, *len);
  return TRUE;
}

gboolean
sim_gatt_read (SimDevice *self, guint16 channel, guint8 *out, gsize *len, GError **error)
{
  SimMeasurement m;

  switch (channel)
    {
    case MI_CHANNEL_TIME:
      *len = read_time (self, out);
      return TRUE;
    case CHANNEL_UNIT:
      out[0] = self->unit;
      *len = 1;
      return TRUE;
    case MI_CHANNEL_MEASUREMENT:
      *len = read_measurement (self, out);
      return TRUE;
    case MI_CHANNEL_BATTERY:
      sim_measure (self, &m);
      out[0] = (guint8) m.percent;
      *len = 1;
      return TRUE;
    case MI_CHANNEL_EXTENDED:
      *len = 0;
      return TRUE;
    default:
      return read_text (self, channel, out, len, error);
    }
}

static void
write_time (SimDevice *self, const guint8 *data, gsize len)
{
  gboolean clock = self->config.model->is_clock;

  if (clock ? len != 5 && len != 6 : len != 4)
    return;
  memcpy (self->time, data, len);
  self->time_len = len;
  self->time_set_ms = self->now;
}

void
sim_gatt_write (SimDevice *self, guint16 channel, const guint8 *data, gsize len)
{
  switch (channel)
    {
    case MI_CHANNEL_TIME:
      write_time (self, data, len);
      break;
    case CHANNEL_UNIT:
      if (len == 1)
        self->unit = data[0];
      break;
    case CHANNEL_DISCONNECT:
      sim_device_drop (self, SIM_REASON_TERMINATED);
      break;
    default: /* among them the connection interval, which the link's own end decides */
      break;
    }
}
