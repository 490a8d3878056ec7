/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "mi-advert.h"
#include "mi-bytes.h"
#include "mi-crypto.h"

#include <psa/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/*
 * Decodes per second of each format against a bare loop of psa_aead_decrypt over the same frames,
 * nonces and cipher texts laid out beforehand, in the same run. Time is the thread's own, short
 * rounds of both alternate and the best of each counts, so that other work on the machine does not
 * decide.
 *
 * One JSON object a line; "ratio" is value by value of "against", the bare loop over the encrypted
 * form of the same layout.
 */

#define DEVICES   24 /* all of the keys that stay imported */
#define ROUNDS    150
#define FRAME_MAX 64
#define TAG_LEN   4
#define CCM       PSA_ALG_AEAD_WITH_SHORTENED_TAG (PSA_ALG_CCM, TAG_LEN)

static const guint8 aad[] = { 0x11 };

typedef struct
{
  guint8 address[6];
  guint8 key[16];
  psa_key_id_t id; /* for the bare loop, while it runs */
  MiAdvertKey *advert_key;
  guint8 frame[FRAME_MAX];
  gsize len;
  guint8 nonce[13];
  gsize nonce_len;
  gsize aad_len;
  guint8 sealed[FRAME_MAX];
  gsize sealed_len;
} Device;

/* Fills frame and len, and of encrypted formats what the bare loop wants. */
typedef void (*BuildFunc) (Device *device);

typedef struct
{
  const char *name;
  guint16 uuid;
  BuildFunc build;
  BuildFunc build_encrypted; /* the same layout, sealed; of encrypted formats NULL */
} Format;

static Device devices[DEVICES];
static gsize repeats = 400;
static MiAdvert advert;

static void
append (Device *device, const void *data, gsize len)
{
  g_assert_cmpuint (device->len + len, <=, FRAME_MAX);
  memcpy (device->frame + device->len, data, len);
  device->len += len;
}

static void
append_reversed_mac (Device *device)
{
  for (gint i = 5; i >= 0; i--)
    append (device, &device->address[i], 1);
}

/* Seals @plain with the nonce as it stands. */
static void
seal (Device *device, gsize aad_len, const guint8 *plain, gsize len)
{
  device->aad_len = aad_len;
  device->sealed_len = len + TAG_LEN;
  if (!mi_crypto_ccm_seal (device->key, device->nonce, device->nonce_len, aad, aad_len, plain, len,
                           device->sealed, NULL))
    g_error ("sealing failed");
}

/* An object of the LYWSD03MMC: 23.0 degrees. */
static const guint8 mibeacon_object[] = { 0x04, 0x10, 0x02, 0xe6, 0x00 };

static void
build_mibeacon (Device *device)
{
  append (device, "\x50\x58\x5b\x05\x17", 5);
  append_reversed_mac (device);
  append (device, mibeacon_object, sizeof mibeacon_object);
}

static void
build_mibeacon_encrypted (Device *device)
{
  static const guint8 counter[] = { 0x10, 0x46, 0x00 };

  append (device, "\x58\x58\x5b\x05\x17", 5);
  append_reversed_mac (device);
  memcpy (device->nonce, device->frame + 5, 6);
  memcpy (device->nonce + 6, device->frame + 2, 3);
  memcpy (device->nonce + 9, counter, sizeof counter);
  device->nonce_len = 12;
  seal (device, sizeof aad, mibeacon_object, sizeof mibeacon_object);
  append (device, device->sealed, sizeof mibeacon_object);
  append (device, counter, sizeof counter);
  append (device, device->sealed + sizeof mibeacon_object, TAG_LEN);
}

static void
build_atc1441 (Device *device)
{
  append (device, device->address, 6);
  append (device, "\x00\xa2\x2f\x5f\x0b\xf8\x19", 7);
}

static void
build_pvvx (Device *device)
{
  append_reversed_mac (device);
  append (device, "\xa9\x06\x69\x11\xb6\x0b\x58\xf7\x0d", 9);
}

static void
build_custom_encrypted (Device *device, const void *plain, gsize len)
{
  const guint8 packet_id = 0xbd;

  append (device, &packet_id, 1);
  for (guint i = 0; i < 6; i++)
    device->nonce[i] = device->address[5 - i];
  device->nonce[6] = (guint8) (1 + len + TAG_LEN + 3);
  memcpy (device->nonce + 7, "\x16\x1a\x18\xbd", 4);
  device->nonce_len = 11;
  seal (device, sizeof aad, plain, len);
  append (device, device->sealed, device->sealed_len);
}

static void
build_pvvx_encrypted (Device *device)
{
  build_custom_encrypted (device, "\xa9\x06\x69\x11\x58\x0d", 6);
}

static void
build_atc1441_encrypted (Device *device)
{
  build_custom_encrypted (device, "\x76\x32\x56", 3);
}

/* Battery, temperature, humidity, as pvvx sends them. */
static const guint8 bthome1_objects[]
    = { 0x23, 0x02, 0x6c, 0x07, 0x03, 0x03, 0xff, 0x13, 0x02, 0x01, 0x4e };
static const guint8 bthome2_objects[] = { 0x01, 0x50, 0x02, 0x80, 0x07, 0x03, 0x4e, 0x18 };

static void
build_bthome1 (Device *device)
{
  append (device, bthome1_objects, sizeof bthome1_objects);
}

static void
build_bthome2 (Device *device)
{
  append (device, "\x40", 1);
  append (device, bthome2_objects, sizeof bthome2_objects);
}

static void
append_sealed_bthome (Device *device, const guint8 *counter, gsize plain_len)
{
  append (device, device->sealed, plain_len);
  append (device, counter, 4);
  append (device, device->sealed + plain_len, TAG_LEN);
}

static void
build_bthome1_encrypted (Device *device)
{
  static const guint8 counter[] = { 0xb0, 0x26, 0x00, 0x00 };

  memcpy (device->nonce, device->address, 6);
  memcpy (device->nonce + 6, "\x1e\x18", 2);
  memcpy (device->nonce + 8, counter, sizeof counter);
  device->nonce_len = 12;
  seal (device, sizeof aad, bthome1_objects, sizeof bthome1_objects);
  append_sealed_bthome (device, counter, sizeof bthome1_objects);
}

static void
build_bthome2_encrypted (Device *device)
{
  static const guint8 counter[] = { 0xb0, 0x26, 0x00, 0x00 };

  append (device, "\x41", 1);
  memcpy (device->nonce, device->address, 6);
  memcpy (device->nonce + 6, "\xd2\xfc\x41", 3);
  memcpy (device->nonce + 9, counter, sizeof counter);
  device->nonce_len = 13;
  seal (device, 0, bthome2_objects, sizeof bthome2_objects);
  append_sealed_bthome (device, counter, sizeof bthome2_objects);
}

static void
build_qingping (Device *device)
{
  append (device, "\x08\x0c", 2);
  append_reversed_mac (device);
  append (device, "\x01\x04\xf1\x00\xad\x01\x02\x01\x25", 9);
}

static const Format formats[] = {
  { "mibeacon-encrypted", MI_ADVERT_UUID_MIBEACON, build_mibeacon_encrypted, NULL },
  { "pvvx-encrypted", MI_ADVERT_UUID_CUSTOM, build_pvvx_encrypted, NULL },
  { "atc1441-encrypted", MI_ADVERT_UUID_CUSTOM, build_atc1441_encrypted, NULL },
  { "bthome1-encrypted", MI_ADVERT_UUID_BTHOME1E, build_bthome1_encrypted, NULL },
  { "bthome2-encrypted", MI_ADVERT_UUID_BTHOME2, build_bthome2_encrypted, NULL },
  { "mibeacon", MI_ADVERT_UUID_MIBEACON, build_mibeacon, build_mibeacon_encrypted },
  { "pvvx", MI_ADVERT_UUID_CUSTOM, build_pvvx, build_pvvx_encrypted },
  { "atc1441", MI_ADVERT_UUID_CUSTOM, build_atc1441, build_atc1441_encrypted },
  { "bthome1", MI_ADVERT_UUID_BTHOME1, build_bthome1, build_bthome1_encrypted },
  { "bthome2", MI_ADVERT_UUID_BTHOME2, build_bthome2, build_bthome2_encrypted },
  /* Never encrypted; its thermometers send encrypted MiBeacons as well. */
  { "qingping", MI_ADVERT_UUID_QINGPING, build_qingping, build_mibeacon_encrypted },
};

static void
build_all (BuildFunc build)
{
  for (guint i = 0; i < DEVICES; i++)
    {
      devices[i].len = 0;
      build (&devices[i]);
    }
}

static void
import_bare_keys (void)
{
  psa_key_attributes_t attributes = PSA_KEY_ATTRIBUTES_INIT;

  psa_set_key_type (&attributes, PSA_KEY_TYPE_AES);
  psa_set_key_algorithm (&attributes, CCM);
  psa_set_key_usage_flags (&attributes, PSA_KEY_USAGE_DECRYPT);
  for (guint i = 0; i < DEVICES; i++)
    if (psa_import_key (&attributes, devices[i].key, sizeof devices[i].key, &devices[i].id)
        != PSA_SUCCESS)
      g_error ("no slot for key %u", i);
}

static double
cpu_seconds (void)
{
  struct timespec now;

  if (clock_gettime (CLOCK_THREAD_CPUTIME_ID, &now) != 0)
    g_error ("no clock");
  return (double) now.tv_sec + (double) now.tv_nsec / 1e9;
}

/* Returns: frames per second */
static double
run_bare (void)
{
  guint8 plain[FRAME_MAX];
  gsize plain_len;
  double start, seconds;

  import_bare_keys ();
  start = cpu_seconds ();
  for (gsize i = 0; i < repeats; i++)
    for (guint j = 0; j < DEVICES; j++)
      {
        const Device *device = &devices[j];

        if (psa_aead_decrypt (device->id, CCM, device->nonce, device->nonce_len, aad,
                              device->aad_len, device->sealed, device->sealed_len, plain,
                              sizeof plain, &plain_len)
            != PSA_SUCCESS)
          g_error ("the bare loop failed");
      }
  seconds = cpu_seconds () - start;
  for (guint i = 0; i < DEVICES; i++)
    psa_destroy_key (devices[i].id);
  return (double) (repeats * DEVICES) / seconds;
}

static double
run_decoder (guint16 uuid, gboolean with_keys)
{
  double start, seconds;

  for (guint i = 0; i < DEVICES; i++)
    devices[i].advert_key
        = with_keys ? mi_advert_key_new (devices[i].key, sizeof devices[i].key) : NULL;
  start = cpu_seconds ();
  for (gsize i = 0; i < repeats; i++)
    for (guint j = 0; j < DEVICES; j++)
      {
        const Device *device = &devices[j];

        if (mi_advert_decode (uuid, device->address, device->frame, device->len, device->advert_key,
                              &advert)
            != MI_ADVERT_STATUS_OK)
          g_error ("a frame was not decoded: %s", mi_advert_error_get_name (advert.error));
      }
  seconds = cpu_seconds () - start;
  for (guint i = 0; i < DEVICES; i++)
    g_clear_pointer (&devices[i].advert_key, mi_advert_key_free);
  return (double) (repeats * DEVICES) / seconds;
}

static void
measure (const Format *format)
{
  gboolean encrypted = format->build_encrypted == NULL;
  double bare = 0, decoder = 0;

  for (guint i = 0; i < ROUNDS; i++)
    {
      build_all (encrypted ? format->build : format->build_encrypted);
      bare = MAX (bare, run_bare ());
      build_all (format->build);
      decoder = MAX (decoder, run_decoder (format->uuid, encrypted));
    }
  printf ("{\"name\": \"bare-ccm-for-%s\", \"value\": %.0f, \"unit\": \"frames/s\"}\n",
          format->name, bare);
  printf ("{\"name\": \"decode-%s\", \"value\": %.0f, \"unit\": \"frames/s\", \"ratio\": %.2f, "
          "\"against\": \"bare-ccm-for-%s\", \"target\": \"%s\"}\n",
          format->name, decoder, decoder / bare, format->name,
          encrypted ? "at least 0.77 (time within 1.3)" : "at least 2");
  fflush (stdout);
}

int
main (int argc, char **argv)
{
  if (argc > 1)
    repeats = MAX (1, strtoul (argv[1], NULL, 10));
  if (psa_crypto_init () != PSA_SUCCESS)
    g_error ("no crypto");
  for (guint i = 0; i < DEVICES; i++)
    {
      static const guint8 prefix[] = { 0xa4, 0xc1, 0x38, 0x00, 0x00 };

      memcpy (devices[i].address, prefix, sizeof prefix);
      devices[i].address[5] = (guint8) i;
      for (guint j = 0; j < sizeof devices[i].key; j++)
        devices[i].key[j] = (guint8) (i * 16 + j);
    }
  for (guint i = 0; i < G_N_ELEMENTS (formats); i++)
    measure (&formats[i]);
  return 0;
}
