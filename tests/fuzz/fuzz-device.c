/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "fuzz.h"

#include "mi.h"
#include "pair.h"

#include <string.h>

/*
 * The simulated thermometer against anything: raw packets, good procedures with faults, time, and
 * its own description. Whatever happens, it stays alive, answers within its own deadlines, and
 * good procedures end.
 */

#define LIMIT_MS  200000
#define IMAGE_LEN 1300
#define GROUP     "[A4:C1:38:00:00:01]\n"

enum
{
  ITEM_CONNECT,
  ITEM_DISCONNECT,
  ITEM_WRITE, /* number of a channel, bytes */
  ITEM_READ,  /* number of a channel */
  ITEM_PASS,
  ITEM_FAULT, /* a spec as text */
  ITEM_BATTERY,
  ITEM_RUN,       /* number of a procedure */
  ITEM_RUN_FAULT, /* number of a procedure, fault of the link, position */
  ITEM_COUNT,
};

static const char *const configs[] = {
  GROUP "Model=LYWSD03MMC\nFirmware=1.0.0_0130\nAuthVersion=1\n",
  GROUP "Model=LYWSD03MMC\nFirmware=2.1.1_0159\nAuthVersion=2\nAtt=244\nEnforce=true\n"
        "Token=0102030405060708090a0b0c\nBindKey=000102030405060708090a0b0c0d0e0f\n",
  GROUP "Model=LYWSD03MMC\nFirmware=1.0.0_0130\nAuthVersion=1\nGeneration=1\nDfu=1\n"
        "Token=0102030405060708090a0b0c\nBindKey=000102030405060708090a0b0c0d0e0f\n",
  GROUP "Model=LYWSD03MMC\nFirmware=1.0.0_0130\nAuthVersion=1\nGeneration=2\nAtt=244\nDfu=2\n"
        "Token=0102030405060708090a0b0c\nBindKey=000102030405060708090a0b0c0d0e0f\n",
};

static const guint8 token[MI_TOKEN_LEN] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 };

static const guint16 channels[]
    = { MI_CHANNEL_CONTROL,     MI_CHANNEL_AUTH,     MI_CHANNEL_OTA,      MI_CHANNEL_DFU_CONTROL,
        MI_CHANNEL_DFU_DATA,    MI_CHANNEL_EXTENDED, MI_CHANNEL_INTERVAL, MI_CHANNEL_TIME,
        MI_CHANNEL_MEASUREMENT, MI_CHANNEL_FIRMWARE, MI_CHANNEL_SOFTWARE, MI_CHANNEL_VERSION,
        MI_CHANNEL_BATTERY,     MI_CHANNEL_MODEL };

static guint8 image[IMAGE_LEN];

static void
make_image (void)
{
  static const char version[] = "mible-login-info 1.0.0_0109 ";

  for (guint i = 0; i < sizeof image; i++)
    image[i] = (guint8) (i * 7 + (i >> 8) * 13);
  memcpy (image, "\x26\x80\0\0\0\0\x5d\x02KNLT", 12);
  memset (image + 0x12, 0, 4);
  mi_put_u32 (image + 0x18, IMAGE_LEN);
  memcpy (image + 0x40, version, strlen (version));
  mi_put_u32 (image + IMAGE_LEN - 4, mi_crc32 (0xffffffff, image, IMAGE_LEN - 4));
}

static MiProcedure *
new_procedure (Pair *pair, guint8 number)
{
  const gboolean explore = number & 0x80 ? TRUE : FALSE;
  const MiOtaOptions ota = { .pipelined = explore, .window = number >> 3 & 0xf };
  MiRegisterOptions options = {
    .sizes = &pair->sizes, .random = pair_random, .random_data = pair->random, .explore = explore
  };
  MiKeys keys;
  gboolean bound = sim_device_get_keys (pair->device, &keys);

  options.can_credential = TRUE;
  switch (number & 7)
    {
    case 0:
      return mi_info_new (&pair->sizes, explore);
    case 1:
      return mi_register_new (&options);
    case 2:
      return mi_login_new (&pair->sizes, bound ? keys.token : token, pair_random, pair->random,
                           explore);
    case 3:
      return mi_login_new (&pair->sizes, (const guint8 *) "wrong token.", pair_random, pair->random,
                           explore);
    case 4:
      return mi_dfu_new (&pair->sizes, image, sizeof image, 0);
    default:
      return mi_ota_new (image, sizeof image, &ota);
    }
}

/* Procedures of a host that never connected are not started by anybody. */
static void
run (Pair *pair, guint8 number, guint8 fault, guint8 at)
{
  if (!pair->link_up)
    return;
  pair->fault = fault % (PAIR_FAULT_CUT + 1);
  pair->fault_at = pair->packets + at;
  if (pair_run (pair, new_procedure (pair, number), LIMIT_MS))
    g_debug ("procedure %u: done", number & 7);
  else
    g_debug ("procedure %u: %s", number & 7, pair->error->message);
  pair->fault = PAIR_FAULT_NONE;
}

static void
raw_write (Pair *pair, guint16 channel, const guint8 *data, gsize len)
{
  g_autoptr (GError) error = NULL;

  if (!sim_device_write (pair->device, pair->now_ms, channel, data, len, &error))
    g_assert (error != NULL);
}

static void
raw_read (Pair *pair, guint16 channel)
{
  guint8 value[SIM_PACKET_MAX];
  gsize len = sizeof value;

  if (sim_device_read (pair->device, pair->now_ms, channel, value, &len, NULL))
    g_assert (len <= sizeof value);
}

static void
play (Pair *pair, const FuzzItem *item)
{
  MiReader in = MI_READER (item->data, item->len);
  guint8 number = mi_reader_u8 (&in);
  guint8 second = mi_reader_u8 (&in);
  g_autofree char *text = NULL;

  switch (item->kind % ITEM_COUNT)
    {
    case ITEM_CONNECT:
      /* A frozen device waits for its battery: no waiting here. */
      pair_disconnect (pair);
      pair->sizes = (MiSizes) MI_SIZES_INIT (number & 1 ? 244 : 20);
      pair->link_up
          = sim_device_connect (pair->device, pair->now_ms, pair->sizes.att_payload, NULL);
      break;
    case ITEM_DISCONNECT:
      pair_disconnect (pair);
      break;
    case ITEM_WRITE:
      raw_write (pair, channels[number % G_N_ELEMENTS (channels)],
                 item->len > 1 ? item->data + 1 : NULL, item->len > 1 ? item->len - 1 : 0);
      break;
    case ITEM_READ:
      raw_read (pair, channels[number % G_N_ELEMENTS (channels)]);
      break;
    case ITEM_FAULT:
      text = item->len > 0 ? g_strndup ((const char *) item->data, item->len) : g_strdup ("");
      sim_device_arm_fault (pair->device, text, NULL);
      break;
    case ITEM_BATTERY:
      sim_device_battery (pair->device, pair->now_ms);
      break;
    case ITEM_RUN:
      run (pair, number, PAIR_FAULT_NONE, 0);
      break;
    case ITEM_RUN_FAULT:
      run (pair, number, second, mi_reader_u8 (&in));
      break;
    case ITEM_PASS:
    default:
      break;
    }
  pair_pass (pair, item->delta_ms);
}

static void
look (Pair *pair)
{
  g_autofree char *state = sim_device_get_state_json (pair->device);
  SimAdvert advert;
  guint n;

  g_assert (g_utf8_validate (state, -1, NULL));
  g_assert (sim_device_get_gatt (pair->device, &n) != NULL && n > 0);
  if (sim_device_get_advert (pair->device, pair->now_ms, &advert))
    g_assert (advert.len <= 31 && (advert.len == 0 || advert.data != NULL));
}

static void
run_device (MiReader *in, const char *config)
{
  Pair *pair = pair_new (config, 5);
  FuzzItems items = { .in = *in };
  FuzzItem item;

  while (fuzz_items_next (&items, &item))
    play (pair, &item);
  fuzz_items_clear (&items);
  look (pair);
  /* Half a minute later it has forgotten whatever was going on. */
  pair_disconnect (pair);
  pair_pass (pair, 60000);
  look (pair);
  pair_free (pair);
}

static void
run_config (MiReader *in)
{
  gsize len = mi_reader_left (in);
  g_autofree char *text = g_strndup ((const char *) mi_reader_take (in, len), len);
  g_autoptr (GKeyFile) file = g_key_file_new ();
  g_auto (GStrv) groups = NULL;
  guint32 seed = 1;

  /* Never files of this machine. */
  if (strstr (text, "File") != NULL || !g_key_file_load_from_data (file, text, len, 0, NULL))
    return;
  groups = g_key_file_get_groups (file, NULL);
  for (guint i = 0; groups[i] != NULL && i < 3; i++)
    {
      g_autoptr (GError) error = NULL;
      g_autoptr (SimDevice) device = sim_device_new (file, groups[i], fuzz_random, &seed, &error);

      g_assert ((device == NULL) == (error != NULL));
    }
}

int
LLVMFuzzerTestOneInput (const guint8 *data, gsize size)
{
  MiReader in = MI_READER (data, size);
  guint8 mode = mi_reader_u8 (&in);

  fuzz_begin ();
  if (image[0] == 0)
    make_image ();
  if (mode & 0x80)
    run_config (&in);
  else
    run_device (&in, configs[mode % G_N_ELEMENTS (configs)]);
  return 0;
}
