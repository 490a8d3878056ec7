/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "sim-private.h"

#include <string.h>

/* Service data UUIDs (protocol/advertising.md section 1) */
#define UUID_MIBEACON 0xfe95
#define UUID_CUSTOM   0x181a
#define UUID_BTHOME1  0x181c
#define UUID_BTHOME1E 0x181e
#define UUID_BTHOME   0xfcd2
#define UUID_QINGPING 0xfdcd

/* MiBeacon frame control (section 3.2) */
#define BEACON_ENCRYPTED  0x0008
#define BEACON_MAC        0x0010
#define BEACON_CAPABILITY 0x0020
#define BEACON_OBJECT     0x0040
#define BEACON_REGISTERED 0x0100
#define BEACON_STANDARD   0x0800 /* authentication mode 2 */

#define CAPABILITY_BOUND   0x08
#define CAPABILITY_UNBOUND 0x28 /* I/O capability follows */
#define UNBOUND_COUNTER    1    /* of a device out of the box (section 3.8) */
#define COUNTER_STEP       512  /* stored so often, added after a start (section 3.9) */
#define PERIOD_S           600  /* of the drift of the values */

static void
reverse_mac (SimDevice *self, guint8 out[6])
{
  for (gsize i = 0; i < 6; i++)
    out[i] = self->mac[5 - i];
}

/* Values */

/* 0..300..0 within ten minutes, shifted by the address so that devices differ. */
static gint64
drift (const SimDevice *self, guint shift)
{
  gint64 phase = (self->now / 1000 + self->mac[5] * 17 + shift) % PERIOD_S;

  return phase < PERIOD_S / 2 ? phase : PERIOD_S - phase;
}

void
sim_measure (const SimDevice *self, SimMeasurement *out)
{
  out->temperature = 2050 + drift (self, 0);
  out->humidity = 4400 + drift (self, 150) * 3;
  out->percent = self->config.battery;
  out->millivolts = 2000 + 10 * self->config.battery;
}

/* Counter: one step per advertising interval */

static guint32
current_counter (SimDevice *self)
{
  guint32 counter = self->counter_base
                    + (guint32) ((self->now - self->counter_from) / self->config.interval_ms);
  guint8 record[4];

  if (counter - self->counter_stored >= COUNTER_STEP)
    {
      self->counter_stored = counter;
      mi_put_u32 (record, counter);
      sim_flash_put_record (self->flash, SIM_RECORD_COUNTER, record, sizeof record);
    }
  return counter;
}

static void
restart_counter (SimDevice *self, guint32 base)
{
  guint8 record[4];

  self->counter_base = self->counter_stored = base;
  self->counter_from = self->now;
  mi_put_u32 (record, base);
  sim_flash_put_record (self->flash, SIM_RECORD_COUNTER, record, sizeof record);
}

void
sim_advert_boot (SimDevice *self)
{
  guint8 record[SIM_RECORD_MAX];
  gboolean stored = sim_flash_get_record (self->flash, SIM_RECORD_COUNTER, record) == 4;

  restart_counter (self, stored ? mi_get_u32 (record) + COUNTER_STEP : UNBOUND_COUNTER);
}

void
sim_advert_registered (SimDevice *self)
{
  restart_counter (self, 0);
}

/* A frame under construction */

typedef struct
{
  guint8 *data;
  gsize len;
} Frame;

static void
put (Frame *frame, const void *data, gsize len)
{
  memcpy (frame->data + frame->len, data, len);
  frame->len += len;
}

static void
put_u8 (Frame *frame, guint8 value)
{
  put (frame, &value, 1);
}

static void
put_u16 (Frame *frame, guint16 value)
{
  guint8 bytes[2];

  mi_put_u16 (bytes, value);
  put (frame, bytes, sizeof bytes);
}

static void
put_float (Frame *frame, float value)
{
  guint32 bits;
  guint8 bytes[4];

  memcpy (&bits, &value, sizeof bits);
  mi_put_u32 (bytes, bits);
  put (frame, bytes, sizeof bytes);
}

static void
put_object (Frame *frame, guint16 id, guint8 len)
{
  put_u16 (frame, id);
  put_u8 (frame, len);
}

/* MiBeacon */

typedef enum
{
  CONTENT_TEMPERATURE,
  CONTENT_HUMIDITY,
  CONTENT_BATTERY,
} Content;

static void
put_temperature (SimDevice *self, Frame *frame, const SimMeasurement *m)
{
  switch (self->config.model->objects)
    {
    case SIM_OBJECTS_1004:
      put_object (frame, 0x1004, 2);
      put_u16 (frame, (guint16) (m->temperature / 10));
      break;
    case SIM_OBJECTS_4801:
      put_object (frame, 0x4801, 4);
      put_float (frame, (float) m->temperature / 100);
      break;
    case SIM_OBJECTS_4C01:
    case SIM_OBJECTS_4C08:
    default:
      put_object (frame, 0x4c01, 4);
      put_float (frame, (float) m->temperature / 100);
      break;
    }
}

static void
put_humidity (SimDevice *self, Frame *frame, const SimMeasurement *m)
{
  switch (self->config.model->objects)
    {
    case SIM_OBJECTS_1004:
      put_object (frame, 0x1006, 2);
      put_u16 (frame, (guint16) (m->humidity / 10));
      break;
    case SIM_OBJECTS_4801:
      put_object (frame, 0x4802, 1);
      put_u8 (frame, (guint8) (m->humidity / 100));
      break;
    case SIM_OBJECTS_4C01:
      put_object (frame, 0x4c02, 1);
      put_u8 (frame, (guint8) (m->humidity / 100));
      break;
    case SIM_OBJECTS_4C08:
    default:
      put_object (frame, 0x4c08, 4);
      put_float (frame, (float) m->humidity / 100);
      break;
    }
}

static void
put_battery (SimDevice *self, Frame *frame, const SimMeasurement *m)
{
  static const guint16 ids[] = {
    [SIM_OBJECTS_1004] = 0x100a,
    [SIM_OBJECTS_4801] = 0x4803,
    [SIM_OBJECTS_4C01] = 0x4c03,
    [SIM_OBJECTS_4C08] = 0x4c03,
  };

  put_object (frame, ids[self->config.model->objects], 1);
  put_u8 (frame, (guint8) m->percent);
}

static void
put_content (SimDevice *self, Frame *frame, Content content)
{
  SimMeasurement m;

  sim_measure (self, &m);
  if (content == CONTENT_TEMPERATURE)
    put_temperature (self, frame, &m);
  else if (content == CONTENT_HUMIDITY)
    put_humidity (self, frame, &m);
  else
    put_battery (self, frame, &m);
}

static guint16
beacon_control (SimDevice *self, guint16 flags)
{
  guint8 version = self->config.model->beacon;
  guint16 control = (guint16) (version << 12 | BEACON_MAC | flags);

  if (version >= 4)
    control |= BEACON_STANDARD;
  if (version == 5 && self->has_token && self->config.reset_button)
    control |= BEACON_REGISTERED;
  return control;
}

static void
put_beacon_head (SimDevice *self, Frame *frame, guint16 flags, guint32 counter)
{
  guint8 mac[6];

  reverse_mac (self, mac);
  put_u16 (frame, beacon_control (self, flags));
  put_u16 (frame, self->config.product_id);
  put_u8 (frame, (guint8) counter);
  put (frame, mac, sizeof mac);
}

/* What a device out of the box sends, or a bound one between its measurements (section 3.8). */
static void
put_idle (SimDevice *self, Frame *frame, guint32 counter)
{
  guint16 io = self->config.io_capability != 0 ? self->config.io_capability : 1;

  if (!self->has_token)
    {
      put_beacon_head (self, frame, BEACON_CAPABILITY, UNBOUND_COUNTER);
      put_u8 (frame, CAPABILITY_UNBOUND);
      put_u16 (frame, io);
    }
  else if (self->config.reset_button)
    put_beacon_head (self, frame, 0, counter);
  else
    {
      put_beacon_head (self, frame, BEACON_CAPABILITY, counter);
      put_u8 (frame, CAPABILITY_BOUND);
    }
}

static void
put_plain_objects (SimDevice *self, Frame *frame, guint32 counter, Content content)
{
  put_beacon_head (self, frame, BEACON_OBJECT, counter);
  put_content (self, frame, content);
}

/* Section 3.6: nonce of the frame's own bytes, additional data 11. */
static void
put_sealed_objects (SimDevice *self, Frame *frame, guint32 counter, Content content)
{
  static const guint8 aad = 0x11;
  guint8 objects[16], sealed[20], nonce[12];
  Frame plain = { objects, 0 };

  put_beacon_head (self, frame, BEACON_OBJECT | BEACON_ENCRYPTED, counter);
  put_content (self, &plain, content);
  reverse_mac (self, nonce);
  mi_put_u16 (nonce + 6, self->config.product_id);
  mi_put_u32 (nonce + 8, counter);
  if (!mi_crypto_ccm_seal (self->keys.bind_key, nonce, sizeof nonce, &aad, 1, plain.data, plain.len,
                           sealed, NULL))
    return;
  put (frame, sealed, plain.len);
  put (frame, nonce + 9, 3);
  put (frame, sealed + plain.len, 4);
}

/* Idle and object frames alternate; the battery comes now and then. */
static void
build_beacon (SimDevice *self, Frame *frame, gboolean encrypted)
{
  guint32 counter = current_counter (self);
  gboolean shows_objects
      = encrypted ? self->has_bind_key
                  : self->has_token || self->config.advert_chosen || self->config.model->beacon < 5;
  Content content = counter / 2 % 2 == 0 ? CONTENT_TEMPERATURE : CONTENT_HUMIDITY;

  if (counter % 16 == 15)
    content = CONTENT_BATTERY;
  if (!shows_objects || counter % 2 == 0)
    put_idle (self, frame, counter);
  else if (encrypted)
    put_sealed_objects (self, frame, counter, content);
  else
    put_plain_objects (self, frame, counter, content);
}

/* 0x181A (section 4) */

static void
put_big16 (Frame *frame, guint16 value)
{
  put_u8 (frame, (guint8) (value >> 8));
  put_u8 (frame, (guint8) value);
}

static void
build_atc1441 (SimDevice *self, Frame *frame)
{
  SimMeasurement m;

  sim_measure (self, &m);
  put (frame, self->mac, 6);
  put_big16 (frame, (guint16) (m.temperature / 10));
  put_u8 (frame, (guint8) (m.humidity / 100));
  put_u8 (frame, (guint8) m.percent);
  put_big16 (frame, (guint16) m.millivolts);
  put_u8 (frame, (guint8) current_counter (self));
}

static void
build_pvvx (SimDevice *self, Frame *frame)
{
  guint8 mac[6];
  SimMeasurement m;

  sim_measure (self, &m);
  reverse_mac (self, mac);
  put (frame, mac, sizeof mac);
  put_u16 (frame, (guint16) m.temperature);
  put_u16 (frame, (guint16) m.humidity);
  put_u16 (frame, (guint16) m.millivolts);
  put_u8 (frame, (guint8) m.percent);
  put_u8 (frame, (guint8) current_counter (self));
  put_u8 (frame, 0);
}

/* Section 4.3. The AD length that enters the nonce is that of the service data plus 3. */
static void
build_sealed_custom (SimDevice *self, Frame *frame, const Frame *plain)
{
  static const guint8 aad = 0x11;
  guint8 sealed[16], nonce[11];
  guint8 id = (guint8) current_counter (self);

  reverse_mac (self, nonce);
  nonce[6] = (guint8) (1 + plain->len + 4 + 3);
  nonce[7] = 0x16;
  mi_put_u16 (nonce + 8, UUID_CUSTOM);
  nonce[10] = id;
  if (!mi_crypto_ccm_seal (self->keys.bind_key, nonce, sizeof nonce, &aad, 1, plain->data,
                           plain->len, sealed, NULL))
    return;
  put_u8 (frame, id);
  put (frame, sealed, plain->len + 4);
}

static void
build_pvvx_sealed (SimDevice *self, Frame *frame)
{
  guint8 data[8];
  Frame plain = { data, 0 };
  SimMeasurement m;

  sim_measure (self, &m);
  put_u16 (&plain, (guint16) m.temperature);
  put_u16 (&plain, (guint16) m.humidity);
  put_u8 (&plain, (guint8) m.percent);
  put_u8 (&plain, 0);
  build_sealed_custom (self, frame, &plain);
}

static void
build_atc1441_sealed (SimDevice *self, Frame *frame)
{
  guint8 data[4];
  Frame plain = { data, 0 };
  SimMeasurement m;

  sim_measure (self, &m);
  put_u8 (&plain, (guint8) (m.temperature / 50 + 80)); /* half degrees above -40 */
  put_u8 (&plain, (guint8) (m.humidity / 50));
  put_u8 (&plain, (guint8) m.percent);
  build_sealed_custom (self, frame, &plain);
}

/* BTHome (sections 5 and 6) */

static void
put_bthome1_objects (Frame *frame, const SimMeasurement *m)
{
  put_u8 (frame, 0x23); /* signed, id and two bytes */
  put_u8 (frame, 0x02);
  put_u16 (frame, (guint16) m->temperature);
  put_u8 (frame, 0x03);
  put_u8 (frame, 0x03);
  put_u16 (frame, (guint16) m->humidity);
  put_u8 (frame, 0x02);
  put_u8 (frame, 0x01);
  put_u8 (frame, (guint8) m->percent);
}

static void
put_bthome_objects (Frame *frame, const SimMeasurement *m)
{
  put_u8 (frame, 0x01);
  put_u8 (frame, (guint8) m->percent);
  put_u8 (frame, 0x02);
  put_u16 (frame, (guint16) m->temperature);
  put_u8 (frame, 0x03);
  put_u16 (frame, (guint16) m->humidity);
}

static void
build_bthome1 (SimDevice *self, Frame *frame)
{
  SimMeasurement m;

  sim_measure (self, &m);
  put_u8 (frame, 0x02);
  put_u8 (frame, 0x00);
  put_u8 (frame, (guint8) current_counter (self));
  put_bthome1_objects (frame, &m);
}

static void
build_bthome (SimDevice *self, Frame *frame)
{
  SimMeasurement m;

  sim_measure (self, &m);
  put_u8 (frame, 0x40);
  put_u8 (frame, 0x00);
  put_u8 (frame, (guint8) current_counter (self));
  put_bthome_objects (frame, &m);
}

static void
put_sealed_counter (SimDevice *self, Frame *frame, const Frame *plain, guint8 *nonce,
                    gsize nonce_len, gboolean has_aad)
{
  static const guint8 aad = 0x11;
  guint8 sealed[32];

  mi_put_u32 (nonce + nonce_len - 4, current_counter (self));
  if (!mi_crypto_ccm_seal (self->keys.bind_key, nonce, nonce_len, &aad, has_aad ? 1 : 0,
                           plain->data, plain->len, sealed, NULL))
    return;
  put (frame, sealed, plain->len);
  put (frame, nonce + nonce_len - 4, 4);
  put (frame, sealed + plain->len, 4);
}

static void
build_bthome1_sealed (SimDevice *self, Frame *frame)
{
  guint8 data[16], nonce[12];
  Frame plain = { data, 0 };
  SimMeasurement m;

  sim_measure (self, &m);
  put_bthome1_objects (&plain, &m);
  memcpy (nonce, self->mac, 6);
  mi_put_u16 (nonce + 6, UUID_BTHOME1E);
  put_sealed_counter (self, frame, &plain, nonce, sizeof nonce, TRUE);
}

static void
build_bthome_sealed (SimDevice *self, Frame *frame)
{
  guint8 data[16], nonce[13];
  Frame plain = { data, 0 };
  SimMeasurement m;

  sim_measure (self, &m);
  put_bthome_objects (&plain, &m);
  put_u8 (frame, 0x41);
  memcpy (nonce, self->mac, 6);
  mi_put_u16 (nonce + 6, UUID_BTHOME);
  nonce[8] = 0x41;
  put_sealed_counter (self, frame, &plain, nonce, sizeof nonce, FALSE);
}

/* Qingping (section 7) */
static void
build_qingping (SimDevice *self, Frame *frame)
{
  guint8 mac[6];
  SimMeasurement m;

  sim_measure (self, &m);
  reverse_mac (self, mac);
  put_u8 (frame, 0x08);
  put_u8 (frame, 0x10); /* CGDK2 */
  put (frame, mac, sizeof mac);
  put_u8 (frame, 0x01);
  put_u8 (frame, 4);
  put_u16 (frame, (guint16) (m.temperature / 10));
  put_u16 (frame, (guint16) (m.humidity / 10));
  put_u8 (frame, 0x02);
  put_u8 (frame, 1);
  put_u8 (frame, (guint8) m.percent);
  put_u8 (frame, 0x0f);
  put_u8 (frame, 1);
  put_u8 (frame, (guint8) current_counter (self));
}

/* The whole */

static void
build_beacon_plain (SimDevice *self, Frame *frame)
{
  build_beacon (self, frame, FALSE);
}

static void
build_beacon_sealed (SimDevice *self, Frame *frame)
{
  build_beacon (self, frame, TRUE);
}

static const struct
{
  guint16 uuid;
  gboolean stock; /* custom firmware does not send it by default */
  void (*build) (SimDevice *self, Frame *frame);
} formats[] = {
  [SIM_ADVERT_NONE] = { 0, FALSE, NULL },
  [SIM_ADVERT_MIBEACON] = { UUID_MIBEACON, TRUE, build_beacon_plain },
  [SIM_ADVERT_MIBEACON_ENCRYPTED] = { UUID_MIBEACON, TRUE, build_beacon_sealed },
  [SIM_ADVERT_ATC1441] = { UUID_CUSTOM, FALSE, build_atc1441 },
  [SIM_ADVERT_ATC1441_ENCRYPTED] = { UUID_CUSTOM, FALSE, build_atc1441_sealed },
  [SIM_ADVERT_PVVX] = { UUID_CUSTOM, FALSE, build_pvvx },
  [SIM_ADVERT_PVVX_ENCRYPTED] = { UUID_CUSTOM, FALSE, build_pvvx_sealed },
  [SIM_ADVERT_BTHOME1] = { UUID_BTHOME1, FALSE, build_bthome1 },
  [SIM_ADVERT_BTHOME1_ENCRYPTED] = { UUID_BTHOME1E, FALSE, build_bthome1_sealed },
  [SIM_ADVERT_BTHOME] = { UUID_BTHOME, FALSE, build_bthome },
  [SIM_ADVERT_BTHOME_ENCRYPTED] = { UUID_BTHOME, FALSE, build_bthome_sealed },
  [SIM_ADVERT_QINGPING] = { UUID_QINGPING, FALSE, build_qingping },
};

/* The firmware decides: a stock format ends with the stock firmware, and returns with it. */
static SimAdvertFormat
current_format (SimDevice *self)
{
  SimAdvertFormat chosen = self->config.advert;
  gboolean custom = sim_firmware_is_custom (self);

  if (custom && formats[chosen].stock)
    return self->firmware.body == MI_IMAGE_CUSTOM_ATC1441 ? SIM_ADVERT_ATC1441 : SIM_ADVERT_PVVX;
  return chosen;
}

static void
choose_name (SimDevice *self)
{
  g_free (self->name);
  if (sim_firmware_is_custom (self))
    self->name = g_strdup_printf ("ATC_%02X%02X%02X", self->mac[3], self->mac[4], self->mac[5]);
  else
    self->name = g_strdup (self->config.model->advertised);
}

gboolean
sim_device_get_advert (SimDevice *self, gint64 now_ms, SimAdvert *out)
{
  Frame frame = { self->advert, 0 };
  SimAdvertFormat format;

  sim_device_tick (self, now_ms);
  if (self->connected || self->power != SIM_POWER_ON)
    return FALSE;
  format = current_format (self);
  choose_name (self);
  if (formats[format].build != NULL)
    formats[format].build (self, &frame);
  *out = (SimAdvert){
    .name = self->name,
    .uuid = frame.len > 0 ? formats[format].uuid : 0,
    .data = self->advert,
    .len = frame.len,
    .rssi = self->config.rssi,
    .interval_ms = self->config.interval_ms,
    .connectable = TRUE,
  };
  return TRUE;
}
