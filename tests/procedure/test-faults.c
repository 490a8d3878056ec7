/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Every single fault at every position: after each the procedure has ended, the device's token is
 * in the host's store, and the next attempt without a fault succeeds.
 */
#include "config.h"

#include "pair.h"
#include "vectors.h"

#include <string.h>

#define ADDRESS   "[A4:C1:38:00:00:01]\n"
#define LIMIT_MS  120000
#define IMAGE_LEN 4100

/* One way of connecting. */
typedef struct
{
  const char *name;
  const char *config;
  guint16 att_payload;
  gboolean explore;
} Variant;

static const Variant variants[] = {
  { "segmented", "Generation=2\nAtt=20\n", 20, FALSE },
  { "explored-244", "Generation=2\nAtt=244\n", 244, TRUE },
  { "explored-20", "Generation=2\nAtt=20\n", 20, TRUE },
  { "generation-1", "Generation=1\nAtt=20\n", 20, FALSE },
};

static const struct
{
  PairFault fault;
  const char *name;
} faults[] = {
  { PAIR_FAULT_LOST, "lost" },
  { PAIR_FAULT_REPEATED, "repeated" },
  { PAIR_FAULT_CORRUPTED_FIRST, "first-byte-corrupted" },
  { PAIR_FAULT_CORRUPTED_LAST, "last-byte-corrupted" },
  { PAIR_FAULT_CUT, "link-cut" },
};

typedef struct
{
  const Variant *variant;
  PairFault fault;
  guint auth_version;
  gboolean pipelined;
  guint dfu_protocol;
} Case;

static guint8 server_key[32];
static GBytes *certificate;
static char *root_hex;
static guint32 credential_utc;

static void
load_server (void)
{
  JsonObject *all = vectors_load ("registration_v2");
  JsonObject *server = json_object_get_object_member (all, "server");
  gsize len;
  guint8 *der = vectors_bytes (all, "certificate", &len);

  g_assert_true (mi_hex_decode (json_object_get_string_member (server, "private"), server_key,
                                sizeof server_key));
  certificate = g_bytes_new_take (der, len);
  root_hex = g_strdup (
      json_object_get_string_member (json_object_get_object_member (all, "root"), "public"));
  credential_utc = (guint32) json_object_get_int_member (all, "utc");
}

static Pair *
new_pair (const Case *c, const char *more)
{
  g_autofree char *config
      = g_strdup_printf (ADDRESS "Model=LYWSD03MMC\nFirmware=%s\nAuthVersion=%u\nRootKey=%s\n%s%s",
                         c->auth_version == 2 ? "2.1.1_0159" : "1.0.0_0130",
                         MAX (c->auth_version, 1), root_hex, c->variant->config, more);
  Pair *pair = pair_new (config, 11);

  pair->server_key = server_key;
  pair->certificate = g_bytes_ref (certificate);
  pair->utc = credential_utc;
  return pair;
}

static MiProcedure *
new_register (Pair *pair, const Case *c)
{
  MiRegisterOptions options = { .sizes = &pair->sizes,
                                .random = pair_random,
                                .random_data = pair->random,
                                .explore = c->variant->explore,
                                .can_credential = TRUE };

  return mi_register_new (&options);
}

static gboolean
log_in (Pair *pair, const Case *c, const guint8 *token)
{
  pair_connect (pair, c->variant->att_payload);
  return pair_run (
      pair, mi_login_new (&pair->sizes, token, pair_random, pair->random, c->variant->explore),
      LIMIT_MS);
}

/* Some stored key set logs in, each tried on a connection of its own. */
static gboolean
some_keys_log_in (Pair *pair, const Case *c)
{
  for (guint i = 0; i < pair->store->len; i++)
    {
      gboolean in = log_in (pair, c, g_array_index (pair->store, PairKeys, i).keys.token);

      pair_disconnect (pair);
      if (in)
        return TRUE;
    }
  return FALSE;
}

static void
check_keys (Pair *pair, const Case *c, gboolean done)
{
  MiKeys held;

  if (sim_device_get_keys (pair->device, &held))
    {
      g_assert_true (pair_knows (pair, held.token));
      g_assert_true (some_keys_log_in (pair, c));
      return;
    }
  g_assert_false (done);
  /* Left unbound: a second attempt binds it. */
  pair_connect (pair, c->variant->att_payload);
  g_assert_true (pair_run (pair, new_register (pair, c), LIMIT_MS));
  pair_disconnect (pair);
  g_assert_true (sim_device_get_keys (pair->device, &held));
  g_assert_true (pair_knows (pair, held.token));
}

/* Returns: packets of the run */
static guint
register_with_fault (const Case *c, guint at)
{
  g_autoptr (Pair) pair = new_pair (c, "");
  gboolean done;
  guint packets;

  pair->fault = c->fault;
  pair->fault_at = at;
  pair_connect (pair, c->variant->att_payload);
  done = pair_run (pair, new_register (pair, c), LIMIT_MS);
  packets = pair->packets;
  pair->fault = PAIR_FAULT_NONE;
  pair_disconnect (pair);
  if (c->fault == PAIR_FAULT_NONE)
    g_assert_true (done);
  check_keys (pair, c, done);
  return packets;
}

typedef guint (*RunFunc) (const Case *c, guint at);

/* Runs without a fault first, to know how many positions there are. */
static void
every_position (const Case *c, RunFunc run)
{
  Case sound = *c;
  guint positions;

  sound.fault = PAIR_FAULT_NONE;
  positions = run (&sound, 0);
  g_assert_cmpuint (positions, >, 5);
  for (guint at = 0; at < positions; at++)
    run (c, at);
  g_test_message ("%u positions", positions);
}

static void
test_register (gconstpointer data)
{
  every_position (data, register_with_fault);
}

#define KEYS                                                                                       \
  "Token=00112233445566778899aabb\nBindKey=ffeeddccbbaa99887766554433221100\nDid=blt.3."           \
  "129vtestaag00\n"

static const guint8 known_token[MI_TOKEN_LEN]
    = { 0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb };

static guint
login_with_fault (const Case *c, guint at)
{
  g_autoptr (Pair) pair = new_pair (c, KEYS);
  MiKeys held;
  gboolean done;
  guint packets;

  pair->fault = c->fault;
  pair->fault_at = at;
  done = log_in (pair, c, known_token);
  packets = pair->packets;
  if (c->fault == PAIR_FAULT_NONE)
    g_assert_true (done);
  pair->fault = PAIR_FAULT_NONE;
  pair_disconnect (pair);
  g_assert_true (sim_device_get_keys (pair->device, &held));
  g_assert_cmpmem (held.token, MI_TOKEN_LEN, known_token, MI_TOKEN_LEN);
  g_assert_true (log_in (pair, c, known_token));
  return packets;
}

static void
test_login (gconstpointer data)
{
  every_position (data, login_with_fault);
}

/* The formula of the vectors, with a stock version in it (protocol/image.md section 1). */
static guint8 *
build_image (gsize len, guint seed, const char *version)
{
  guint8 *image = g_malloc (len);

  for (gsize i = 0; i < len; i++)
    image[i] = (guint8) (i * 7 + (i >> 8) * 13 + seed);
  memcpy (image, "\x26\x80\0\0\0\0\x5d\x02KNLT", 12);
  mi_put_u32 (image + 0x12, 0);
  mi_put_u32 (image + 0x18, (guint32) len);
  memcpy (image + 0x100, "\0mible-login-info\0LYWSD03MMC\0", 29);
  memcpy (image + 0x120, "\0", 1);
  memcpy (image + 0x121, version, strlen (version) + 1);
  mi_put_u32 (image + len - 4, mi_crc32 (0xffffffff, image, len - 4));
  return image;
}

static void
assert_bootable (Pair *pair)
{
  gsize size;
  const guint8 *flash = sim_device_get_flash (pair->device, &size);
  guint32 bank = sim_device_get_running (pair->device);
  guint32 len;

  g_assert_cmpuint (bank + 0x20, <, size);
  g_assert_cmpmem (flash + bank + 8, 4, "KNLT", 4);
  len = mi_get_u32 (flash + bank + 0x18);
  g_assert_cmpuint (bank + len, <=, size);
  g_assert_cmpuint (mi_crc32 (0xffffffff, flash + bank, len - 4), ==,
                    mi_get_u32 (flash + bank + len - 4));
}

static gboolean
upload (Pair *pair, const Case *c, const guint8 *image)
{
  MiOtaOptions options = { .pipelined = c->pipelined, .set_interval = TRUE };

  return pair_run (pair, mi_ota_new (image, IMAGE_LEN, &options), LIMIT_MS);
}

static guint
ota_with_fault (const Case *c, guint at)
{
  g_autofree guint8 *image = build_image (IMAGE_LEN, 21, "1.0.0_0131");
  g_autoptr (Pair) pair = new_pair (c, KEYS);
  guint packets;

  g_assert_true (log_in (pair, c, known_token));
  pair->packets = 0;
  pair->fault = c->fault;
  pair->fault_at = at;
  upload (pair, c, image);
  packets = pair->packets;
  pair->fault = PAIR_FAULT_NONE;
  pair_disconnect (pair);
  pair_pass (pair, 40000);
  sim_device_battery (pair->device, pair->now_ms);
  pair_pass (pair, 10000);
  assert_bootable (pair);
  if (g_strcmp0 (sim_device_get_version (pair->device), "1.0.0_0131") != 0)
    {
      g_assert_true (c->fault != PAIR_FAULT_NONE);
      g_assert_cmpstr (sim_device_get_version (pair->device), ==, "1.0.0_0130");
      g_assert_true (log_in (pair, c, known_token));
      g_assert_true (upload (pair, c, image));
      pair_disconnect (pair);
      pair_pass (pair, 10000);
    }
  g_assert_cmpstr (sim_device_get_version (pair->device), ==, "1.0.0_0131");
  assert_bootable (pair);
  g_assert_true (log_in (pair, c, known_token));
  return packets;
}

static void
test_ota (gconstpointer data)
{
  every_position (data, ota_with_fault);
}

static guint8 *dfu_image;
static gsize dfu_image_len;

static void
load_dfu_image (void)
{
  dfu_image = vectors_bytes (vectors_load ("ota_mible"), "image", &dfu_image_len);
}

static Pair *
new_dfu_pair (const Case *c)
{
  g_autofree char *config = g_strdup_printf (
      ADDRESS "Model=LYWSD02MMC\nFirmware=2.0.0_0001\nAuthVersion=1\nTelinkOta=false\nDfu=%u\n"
              "ProductId=16E4\nImageRootKey=%s\n" KEYS "%s",
      c->dfu_protocol, root_hex, c->variant->config);

  return pair_new (config, 11);
}

static gboolean
dfu (Pair *pair, const Case *c)
{
  return pair_run (pair, mi_dfu_new (&pair->sizes, dfu_image, dfu_image_len, 0), LIMIT_MS);
}

static guint
dfu_with_fault (const Case *c, guint at)
{
  g_autoptr (Pair) pair = new_dfu_pair (c);
  guint packets;

  g_assert_true (log_in (pair, c, known_token));
  pair->packets = 0;
  pair->fault = c->fault;
  pair->fault_at = at;
  dfu (pair, c);
  packets = pair->packets;
  pair->fault = PAIR_FAULT_NONE;
  pair_disconnect (pair);
  pair_pass (pair, 10000);
  assert_bootable (pair);
  if (g_strcmp0 (sim_device_get_version (pair->device), "2.0.1_0021") != 0)
    {
      g_assert_true (c->fault != PAIR_FAULT_NONE);
      g_assert_true (log_in (pair, c, known_token));
      g_assert_true (dfu (pair, c));
      pair_disconnect (pair);
      pair_pass (pair, 10000);
    }
  g_assert_cmpstr (sim_device_get_version (pair->device), ==, "2.0.1_0021");
  assert_bootable (pair);
  g_assert_true (log_in (pair, c, known_token));
  return packets;
}

static void
test_dfu (gconstpointer data)
{
  every_position (data, dfu_with_fault);
}

static Case *
new_case (const Variant *variant, PairFault fault, guint auth_version, gboolean pipelined)
{
  Case *c = g_new0 (Case, 1);

  c->variant = variant;
  c->fault = fault;
  c->auth_version = auth_version;
  c->pipelined = pipelined;
  return c;
}

static void
add (const char *name, const char *variant, const char *fault, GTestDataFunc test, Case *c)
{
  g_autofree char *path = g_strdup_printf ("/%s/%s/%s-at-every-position", name, variant, fault);

  g_test_add_data_func_full (path, c, test, g_free);
}

static void
add_dfu (const char *name, const Variant *variant, guint fault, guint protocol)
{
  Case *c = new_case (variant, faults[fault].fault, 1, FALSE);

  c->dfu_protocol = protocol;
  add (name, variant->name, faults[fault].name, test_dfu, c);
}

static void
add_cases (void)
{
  for (guint v = 0; v < G_N_ELEMENTS (variants); v++)
    for (guint f = 0; f < G_N_ELEMENTS (faults); f++)
      {
        const Variant *variant = &variants[v];
        const char *fault = faults[f].name;

        add ("register-1", variant->name, fault, test_register,
             new_case (variant, faults[f].fault, 1, FALSE));
        /* Those with small packets are below. */
        if (variant->att_payload > 20)
          add ("register-2", variant->name, fault, test_register,
               new_case (variant, faults[f].fault, 2, FALSE));
        add ("login", variant->name, fault, test_login,
             new_case (variant, faults[f].fault, 1, FALSE));
      }
  for (guint f = 0; f < G_N_ELEMENTS (faults); f++)
    {
      add ("ota", "waiting", faults[f].name, test_ota,
           new_case (&variants[0], faults[f].fault, 1, FALSE));
      add ("ota", "pipelined", faults[f].name, test_ota,
           new_case (&variants[0], faults[f].fault, 1, TRUE));
    }
}

/* Checks of signatures at each of the many positions. */
static void
add_small_cases (void)
{
  for (guint v = 0; v < G_N_ELEMENTS (variants); v++)
    for (guint f = 0; f < G_N_ELEMENTS (faults); f++)
      if (variants[v].att_payload == 20 && !g_str_equal (variants[v].name, "generation-1"))
        add ("register-2", variants[v].name, faults[f].name, test_register,
             new_case (&variants[v], faults[f].fault, 2, FALSE));
}

static void
add_dfu_cases (void)
{
  for (guint f = 0; f < G_N_ELEMENTS (faults); f++)
    {
      add_dfu ("dfu-1", &variants[3], f, 1);
      add_dfu ("dfu-2", &variants[0], f, 2);
      add_dfu ("dfu-2", &variants[1], f, 2);
    }
}

int
main (int argc, char **argv)
{
  int status;

  g_test_init (&argc, &argv, NULL);
  load_server ();
  load_dfu_image ();
  if (argc > 1 && g_str_equal (argv[1], "dfu"))
    add_dfu_cases ();
  else if (argc > 1 && g_str_equal (argv[1], "small"))
    add_small_cases ();
  else
    add_cases ();
  status = g_test_run ();
  g_free (dfu_image);
  g_bytes_unref (certificate);
  g_free (root_hex);
  return status;
}
