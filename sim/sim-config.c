/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "sim-private.h"

#include <string.h>

#define BANK_SECOND_SMALL 0x20000u
#define SETTINGS          0x74000u /* no bank reaches beyond */
#define LIMIT_MIN         0x2000u  /* the factory's image fits */
#define LIMIT_MAX         0x40000u
#define DEFAULT_OOB       "123456"

/* One group of the file, read strictly: the first problem is kept and ends everything. */
typedef struct
{
  GKeyFile *file;
  const char *group;
  GError **error;
  gboolean failed;
} Reader;

static void
fail (Reader *self, const char *key, const char *why)
{
  if (self->failed)
    return;
  self->failed = TRUE;
  g_set_error (self->error, MI_ERROR, MI_ERROR_INVALID_ARGUMENT, "[%s] %s: %s", self->group, key,
               why);
}

/* Returns: (nullable): the value without surrounding blanks; NULL: absent */
static char *
get_string (Reader *self, const char *key)
{
  g_autoptr (GError) error = NULL;
  char *value;

  if (self->failed || !g_key_file_has_key (self->file, self->group, key, NULL))
    return NULL;
  value = g_key_file_get_string (self->file, self->group, key, &error);
  if (value == NULL)
    {
      fail (self, key, error->message);
      return NULL;
    }
  return g_strstrip (value);
}

static char *
get_text (Reader *self, const char *key, const char *fallback, gsize max)
{
  g_autofree char *value = get_string (self, key);

  if (value == NULL)
    return g_strdup (fallback);
  if (*value == '\0' || strlen (value) > max)
    fail (self, key, "empty or too long");
  for (const char *p = value; *p != '\0'; p++) /* 2A26 is not quoted in events */
    if (!g_ascii_isprint (*p) || *p == '"' || *p == '\\')
      fail (self, key, "not plain ASCII");
  return g_steal_pointer (&value);
}

static gboolean
parse_number (const char *text, gint64 min, gint64 max, gint64 *out)
{
  gboolean hex = g_str_has_prefix (text, "0x") || g_str_has_prefix (text, "0X");
  guint64 unsigned_value;

  if (!hex)
    return g_ascii_string_to_signed (text, 10, min, max, out, NULL);
  if (!g_ascii_string_to_unsigned (text + 2, 16, (guint64) MAX (min, 0), (guint64) max,
                                   &unsigned_value, NULL))
    return FALSE;
  *out = (gint64) unsigned_value;
  return TRUE;
}

static gint64
get_number (Reader *self, const char *key, gint64 fallback, gint64 min, gint64 max)
{
  g_autofree char *value = get_string (self, key);
  g_autofree char *why = NULL;
  gint64 number = fallback;

  if (value == NULL || parse_number (value, min, max, &number))
    return number;
  why = g_strdup_printf ("\"%s\" is no number from %" G_GINT64_FORMAT " to %" G_GINT64_FORMAT,
                         value, min, max);
  fail (self, key, why);
  return fallback;
}

static gboolean
get_boolean (Reader *self, const char *key, gboolean fallback)
{
  g_autofree char *value = get_string (self, key);

  if (value == NULL)
    return fallback;
  if (g_str_equal (value, "true") || g_str_equal (value, "1") || g_str_equal (value, "yes"))
    return TRUE;
  if (!g_str_equal (value, "false") && !g_str_equal (value, "0") && !g_str_equal (value, "no"))
    fail (self, key, "neither true nor false");
  return FALSE;
}

/* Returns: whether the key is there and good */
static gboolean
get_hex (Reader *self, const char *key, guint8 *out, gsize len)
{
  g_autofree char *value = get_string (self, key);
  g_autofree char *why = NULL;
  gboolean good;

  if (value == NULL)
    return FALSE;
  good = mi_hex_decode (value, out, len);
  mi_crypto_wipe (value, strlen (value));
  if (good)
    return TRUE;
  why = g_strdup_printf ("not %" G_GSIZE_FORMAT " hex digits", 2 * len);
  fail (self, key, why);
  return FALSE;
}

/* Items between ";", "," and blanks. */
static char **
get_list (Reader *self, const char *key)
{
  g_autofree char *value = get_string (self, key);

  return value != NULL ? g_strsplit_set (value, ";, \t", -1) : NULL;
}

static void
read_model (Reader *self, SimConfig *config)
{
  g_autofree char *name = get_string (self, "Model");
  g_autofree char *why = NULL;

  if (name == NULL)
    {
      fail (self, "Model", "is missing");
      return;
    }
  config->model = sim_model_find (name);
  if (config->model != NULL)
    return;
  why = g_strdup_printf ("unknown model \"%s\"", name);
  fail (self, "Model", why);
}

static void
read_product_id (Reader *self, SimConfig *config)
{
  g_autofree char *value = get_string (self, "ProductId");
  const char *digits = value;
  guint64 number = config->model->product_id;

  if (digits != NULL && (g_str_has_prefix (digits, "0x") || g_str_has_prefix (digits, "0X")))
    digits += 2;
  if (digits != NULL && !g_ascii_string_to_unsigned (digits, 16, 0, 0xffff, &number, NULL))
    fail (self, "ProductId", "not a hex number of 16 bits");
  config->product_id = (guint16) number;
}

static void
read_keys (Reader *self, SimConfig *config)
{
  g_autofree char *did = get_string (self, "Did");

  config->has_token = get_hex (self, "Token", config->keys.token, MI_TOKEN_LEN);
  config->has_bind_key = get_hex (self, "BindKey", config->keys.bind_key, MI_BIND_KEY_LEN);
  config->keys.auth_version = (guint16) config->auth_version;
  if (did == NULL || *did == '\0')
    return;
  config->keys.has_did = mi_did_from_text (did, config->keys.did);
  if (!config->keys.has_did)
    fail (self, "Did", "longer than 20 characters");
}

static void
read_root (Reader *self, const char *key, guint8 root[64])
{
  memcpy (root, mi_mijia_root, 64);
  if (get_hex (self, key, root, 64) && !mi_ec_point_is_valid (root))
    fail (self, key, "no point of P-256");
}

static void
read_identity (Reader *self, SimConfig *config)
{
  const SimModel *model = config->model;
  SimFirmware defaults = { 0 };

  config->hardware = get_text (self, "Hardware", model->hardware, 20);
  config->firmware = get_text (self, "Firmware", model->firmware, 20);
  config->serial = get_text (self, "Serial", model->serial, 32);
  read_product_id (self, config);
  sim_firmware_from_config (&defaults, config);
  config->auth_version = (guint) get_number (self, "AuthVersion", defaults.auth_version, 0, 3);
  config->enforce = get_boolean (self, "Enforce", defaults.enforce);
  sim_firmware_clear (&defaults);
  read_keys (self, config);
  read_root (self, "RootKey", config->root);
  read_root (self, "ImageRootKey", config->image_root);
}

static void
read_banks (Reader *self, SimConfig *config)
{
  g_auto (GStrv) items = get_list (self, "Banks");
  gint64 address;

  config->limit = (guint32) get_number (self, "Limit", config->model->limit, LIMIT_MIN, LIMIT_MAX);
  if (items == NULL)
    {
      config->banks[1] = config->limit > BANK_SECOND_SMALL ? SIM_BANK_EXTENDED : BANK_SECOND_SMALL;
      config->n_banks = 2;
    }
  for (guint i = 0; items != NULL && items[i] != NULL; i++)
    {
      if (*items[i] == '\0')
        continue;
      if (config->n_banks == SIM_FLASH_BANKS_MAX
          || !parse_number (items[i], 0, SETTINGS - SIM_FLASH_SECTOR, &address)
          || address % SIM_FLASH_SECTOR != 0
          || (config->n_banks > 0 && address <= config->banks[config->n_banks - 1]))
        {
          fail (self, "Banks", "not two or three ascending addresses of sectors");
          return;
        }
      config->banks[config->n_banks++] = (guint32) address;
    }
  if (config->n_banks < 2)
    fail (self, "Banks", "fewer than two addresses");
  for (guint i = 0; i + 1 < config->n_banks; i++)
    if (config->limit > config->banks[i + 1] - config->banks[i])
      fail (self, "Limit", "larger than the distance of the banks");
  if (config->n_banks > 0 && config->limit > SETTINGS - config->banks[config->n_banks - 1])
    fail (self, "Limit", "reaches into the settings at 0x74000");
  if (config->n_banks == 2 && config->banks[1] + config->limit <= SIM_BANK_EXTENDED)
    {
      config->banks[config->n_banks++] = SIM_BANK_EXTENDED;
      config->extended = TRUE;
    }
}

static void
read_update (Reader *self, SimConfig *config)
{
  g_autofree char *reject = get_string (self, "OnReject");

  config->dfu = (guint) get_number (self, "Dfu", config->model->dfu, 0, 2);
  config->telink = get_boolean (self, "TelinkOta", config->model->telink);
  config->counts_blocks = get_boolean (self, "CountsBlocks", FALSE);
  config->accept_envelope = get_boolean (self, "AcceptEnvelope", FALSE);
  config->reject_freezes = reject == NULL || g_str_equal (reject, "freeze");
  if (!config->reject_freezes && !g_str_equal (reject, "restart"))
    fail (self, "OnReject", "neither freeze nor restart");
  read_banks (self, config);
}

static void
read_link (Reader *self, SimConfig *config)
{
  g_auto (GStrv) radio = get_list (self, "Radio");
  gint64 values[3] = { 0 };
  guint n = 0;

  config->generation = (guint) get_number (self, "Generation", 2, 1, 2);
  config->att = (guint16) get_number (self, "Att", 0, 0, 244);
  if (config->att > 0 && config->att < 20)
    fail (self, "Att", "less than 20");
  config->fill_quirk = get_boolean (self, "FillQuirk", FALSE);
  for (guint i = 0; radio != NULL && radio[i] != NULL; i++)
    {
      if (*radio[i] == '\0')
        continue;
      if (n == G_N_ELEMENTS (values) || !parse_number (radio[i], 0, 10000, &values[n++]))
        {
          fail (self, "Radio", "not interval_ms,packets_per_event,loss_permille");
          return;
        }
    }
  if (n > 0 && (n < 2 || values[0] == 0 || values[1] == 0 || values[2] > 999))
    fail (self, "Radio", "not interval_ms,packets_per_event,loss_permille");
  config->radio = (SimRadio){ (guint) values[0], (guint) values[1], (guint) values[2] };
}

static void
read_authentication (Reader *self, SimConfig *config)
{
  memcpy (config->oob, DEFAULT_OOB, strlen (DEFAULT_OOB));
  get_hex (self, "Oob", config->oob, sizeof config->oob);
  config->io_capability = (guint16) get_number (self, "IoCapability", 0, 0, 0xffff);
  config->reset_button = get_boolean (self, "ResetButton", FALSE);
}

static const struct
{
  const char *name;
  SimAdvertFormat format;
  gboolean needs_key;
} formats[] = {
  { "none", SIM_ADVERT_NONE, FALSE },
  { "mibeacon", SIM_ADVERT_MIBEACON, FALSE },
  { "mibeacon-encrypted", SIM_ADVERT_MIBEACON_ENCRYPTED, FALSE },
  { "atc1441", SIM_ADVERT_ATC1441, FALSE },
  { "atc1441-encrypted", SIM_ADVERT_ATC1441_ENCRYPTED, TRUE },
  { "pvvx", SIM_ADVERT_PVVX, FALSE },
  { "pvvx-encrypted", SIM_ADVERT_PVVX_ENCRYPTED, TRUE },
  { "bthome1", SIM_ADVERT_BTHOME1, FALSE },
  { "bthome1-encrypted", SIM_ADVERT_BTHOME1_ENCRYPTED, TRUE },
  { "bthome", SIM_ADVERT_BTHOME, FALSE },
  { "bthome-encrypted", SIM_ADVERT_BTHOME_ENCRYPTED, TRUE },
  { "qingping", SIM_ADVERT_QINGPING, FALSE },
};

static void
read_format (Reader *self, SimConfig *config)
{
  g_autofree char *name = get_string (self, "Advert");

  config->advert
      = config->model->beacon_plain ? SIM_ADVERT_MIBEACON : SIM_ADVERT_MIBEACON_ENCRYPTED;
  if (name == NULL)
    return;
  config->advert_chosen = TRUE;
  for (gsize i = 0; i < G_N_ELEMENTS (formats); i++)
    if (g_str_equal (formats[i].name, name))
      {
        config->advert = formats[i].format;
        if (formats[i].needs_key && !config->has_bind_key)
          fail (self, "Advert", "this format needs a BindKey");
        return;
      }
  fail (self, "Advert", "unknown format");
}

static void
read_air (Reader *self, SimConfig *config)
{
  read_format (self, config);
  config->interval_ms = (guint) get_number (self, "Interval", 1000, 20, 600000);
  config->rssi = (gint16) get_number (self, "Rssi", -60, -127, 20);
  config->battery = (guint) get_number (self, "Battery", 100, 0, 100);
  config->flash_file = get_string (self, "FlashFile");
  if (config->flash_file != NULL && *config->flash_file == '\0')
    g_clear_pointer (&config->flash_file, g_free);
}

static void
read_faults (Reader *self, SimFaults *faults)
{
  g_auto (GStrv) items = get_list (self, "Faults");

  for (guint i = 0; items != NULL && items[i] != NULL; i++)
    {
      g_autoptr (GError) error = NULL;

      if (*items[i] != '\0' && !sim_faults_arm (faults, items[i], &error))
        fail (self, "Faults", error->message);
    }
}

static void
check_names (Reader *self)
{
  static const char *const known[] = {
    "AcceptEnvelope", "Advert",       "Att",         "AuthVersion", "Banks",    "Battery",
    "BindKey",        "CountsBlocks", "Dfu",         "Did",         "Enforce",  "Faults",
    "FillQuirk",      "Firmware",     "FlashFile",   "Generation",  "Hardware", "ImageRootKey",
    "Interval",       "IoCapability", "Limit",       "Model",       "OnReject", "Oob",
    "ProductId",      "Radio",        "ResetButton", "RootKey",     "Rssi",     "Serial",
    "TelinkOta",      "Token",        NULL
  };
  g_auto (GStrv) keys = g_key_file_get_keys (self->file, self->group, NULL, self->error);

  if (keys == NULL)
    {
      self->failed = TRUE;
      return;
    }
  for (guint i = 0; keys[i] != NULL; i++)
    if (!g_strv_contains (known, keys[i]))
      fail (self, keys[i], "unknown key");
}

gboolean
sim_config_read (SimConfig *self, GKeyFile *file, const char *group, SimFaults *faults,
                 GError **error)
{
  Reader reader = { file, group, error, FALSE };

  check_names (&reader);
  if (!reader.failed)
    read_model (&reader, self);
  if (reader.failed)
    return FALSE;
  read_identity (&reader, self);
  read_update (&reader, self);
  read_link (&reader, self);
  read_authentication (&reader, self);
  read_air (&reader, self);
  read_faults (&reader, faults);
  return !reader.failed;
}

void
sim_config_clear (SimConfig *self)
{
  g_free (self->hardware);
  g_free (self->firmware);
  g_free (self->serial);
  g_free (self->flash_file);
  mi_keys_clear (&self->keys);
  *self = (SimConfig){ 0 };
}
