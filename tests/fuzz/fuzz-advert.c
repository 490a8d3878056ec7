/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "fuzz.h"

#include "mi-advert.h"

#include <string.h>

/*
 * Input: address (6), flags (1: address known; 6: which length of key), key (16), then frames: kind
 * of UUID, seconds since the last one, length, data (make-advert-corpus.py).
 */
#define ADDRESS_LEN   6
#define KEY_LEN       16
#define FLAG_ADDRESS  1
#define FLAG_KEY      6
#define FLAG_STRICT   8
#define KIND_ELEMENTS 7 /* a whole advertisement */

typedef struct
{
  const guint8 *address; /* nullable */
  MiAdvertKey *key;      /* nullable */
  MiAdvertFilter filter;
  gint64 now_us;
} Receiver;

static void
check_reading (const MiReading *reading)
{
  double value = mi_reading_get_double (reading);

  g_assert (reading->kind < MI_N_READINGS && reading->ordinal > 0);
  if (reading->kind == MI_READING_TEMPERATURE)
    g_assert (value >= -40 && value <= 125);
  if (reading->kind == MI_READING_HUMIDITY || reading->kind == MI_READING_BATTERY)
    g_assert (value >= 0 && value <= 100);
  if (mi_reading_kind_is_boolean (reading->kind))
    g_assert (reading->value == 0 || reading->value == 1);
}

/* What holds for every result, whatever came in. */
static void
check_result (const Receiver *self, const MiAdvert *advert)
{
  gboolean failed = advert->status == MI_ADVERT_STATUS_ERROR;

  g_assert (failed == (advert->error != MI_ADVERT_ERROR_NONE));
  g_assert (!failed || advert->n_readings + advert->n_rejected + advert->n_objects == 0);
  g_assert (advert->n_readings <= MI_ADVERT_READINGS_MAX);
  g_assert (advert->n_rejected <= MI_ADVERT_REJECTED_MAX);
  g_assert (advert->n_objects <= MI_ADVERT_READINGS_MAX);
  /* With a key nobody injects values in the clear; Qingping has no keys (section 7). */
  if (self->key != NULL && advert->n_readings > 0)
    g_assert (advert->encrypted || advert->format == MI_ADVERT_FORMAT_QINGPING);
  if (advert->encrypted && !failed)
    g_assert (self->key != NULL);
  for (guint i = 0; i < advert->n_objects; i++)
    g_assert (advert->objects[i].offset + advert->objects[i].len <= MI_ADVERT_DATA_MAX);
  for (guint i = 0; i < advert->n_readings; i++)
    check_reading (&advert->readings[i]);
}

static void
receive (Receiver *self, guint16 uuid, const guint8 *data, gsize len)
{
  MiAdvertFilter before = self->filter;
  MiAdvertIdentity identity;
  MiAdvertVerdict verdict;
  MiAdvert advert;

  mi_advert_identify (uuid, data, len, NULL, &identity);
  mi_advert_decode (uuid, self->address, data, len, self->key, &advert);
  check_result (self, &advert);
  verdict = mi_advert_filter_check (&self->filter, &advert, data, len, self->now_us);
  g_assert ((verdict == MI_ADVERT_VERDICT_ERROR) == (advert.status == MI_ADVERT_STATUS_ERROR));
  if (verdict != MI_ADVERT_VERDICT_ACCEPT)
    g_assert (memcmp (before.slots, self->filter.slots, sizeof before.slots) == 0);
}

static void
receive_elements (Receiver *self, const guint8 *data, gsize len)
{
  MiAdvertSplit split = MI_ADVERT_SPLIT (data, len);
  MiAdvertElement element;

  while (mi_advert_split_next (&split, &element))
    receive (self, element.manufacturer ? MI_ADVERT_UUID_MIBEACON : element.uuid, element.data,
             element.len);
}

static void
receive_frames (Receiver *self, MiReader *in)
{
  static const guint16 uuids[KIND_ELEMENTS]
      = { MI_ADVERT_UUID_MIBEACON, MI_ADVERT_UUID_CUSTOM,  MI_ADVERT_UUID_BTHOME1,
          MI_ADVERT_UUID_BTHOME1E, MI_ADVERT_UUID_BTHOME2, MI_ADVERT_UUID_QINGPING };

  while (mi_reader_ok (in))
    {
      guint8 kind = mi_reader_u8 (in) % (KIND_ELEMENTS + 1);
      gint64 seconds = mi_reader_u8 (in);
      gsize len = mi_reader_u8 (in);
      const guint8 *data = mi_reader_take (in, len);
      g_autofree guint8 *exact = NULL;

      if (data == NULL)
        return;
      exact = g_memdup2 (data, len);
      self->now_us += seconds * G_USEC_PER_SEC;
      if (kind == KIND_ELEMENTS)
        receive_elements (self, exact, len);
      else
        receive (self, uuids[kind], exact, len);
    }
}

int
LLVMFuzzerTestOneInput (const guint8 *data, gsize size)
{
  static const gsize key_lengths[] = { 0, 16, 12, 15 };
  MiReader in = MI_READER (data, size);
  const guint8 *address = mi_reader_take (&in, ADDRESS_LEN);
  guint8 flags = mi_reader_u8 (&in);
  const guint8 *key = mi_reader_take (&in, KEY_LEN);
  gsize key_len = key_lengths[(flags & FLAG_KEY) >> 1];
  Receiver self = { 0 };

  fuzz_begin ();
  if (key == NULL)
    return 0;
  self.address = (flags & FLAG_ADDRESS) != 0 ? address : NULL;
  self.filter.strict = (flags & FLAG_STRICT) != 0;
  self.key = key_len > 0 ? mi_advert_key_new (key, key_len) : NULL;
  receive_frames (&self, &in);
  mi_advert_key_free (self.key);
  return 0;
}
