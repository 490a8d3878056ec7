/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "mitherm-bluez-gatt.h"

#include <string.h>

#define UUID_LEN 36

/* A family of UUIDs, each with a 16-bit part; @service: the one in which they count. */
typedef struct
{
  const char *pattern; /* "xxxx" stands for the 16-bit part */
  guint16 first, last;
  const char *service;
} Family;

#define BLUETOOTH_BASE "xxxx-0000-1000-8000-00805f9b34fb"
#define MI_SERVICE     "0000fe95-0000-1000-8000-00805f9b34fb"
#define INFO_SERVICE   "0000180a-0000-1000-8000-00805f9b34fb"
#define CUSTOM_SERVICE "00001f10-0000-1000-8000-00805f9b34fb"

static const Family families[] = {
  { "0000" BLUETOOTH_BASE, 0x0001, 0x001c, MI_SERVICE },
  { "0000" BLUETOOTH_BASE, 0x2a23, 0x2a29, INFO_SERVICE },
  { "0000" BLUETOOTH_BASE, 0x1f1f, 0x1f1f, CUSTOM_SERVICE },
  { "00010203-0405-0607-0809-0a0b0c0dxxxx", 0x2b12, 0x2b12,
    "00010203-0405-0607-0809-0a0b0c0d1912" },
  { "ebe0xxxx-7a0a-4b0c-8a1a-6ff2997da3a6", 0xcc00, 0xcfff,
    "ebe0ccb0-7a0a-4b0c-8a1a-6ff2997da3a6" },
};

/* The 16-bit part of @uuid if it is built like @pattern. */
static gboolean
match_pattern (const char *pattern, const char *uuid, guint16 *out)
{
  guint value = 0;

  if (strlen (uuid) != UUID_LEN)
    return FALSE;
  for (gsize i = 0; i < UUID_LEN; i++)
    {
      if (pattern[i] != 'x')
        {
          if (g_ascii_tolower (uuid[i]) != pattern[i])
            return FALSE;
          continue;
        }
      if (!g_ascii_isxdigit (uuid[i]))
        return FALSE;
      value = value << 4 | (guint) g_ascii_xdigit_value (uuid[i]);
    }
  *out = (guint16) value;
  return TRUE;
}

guint16
mitherm_gatt_channel (const char *service, const char *uuid)
{
  guint16 value = 0;

  g_return_val_if_fail (service != NULL && uuid != NULL, 0);

  for (gsize i = 0; i < G_N_ELEMENTS (families); i++)
    {
      const Family *family = &families[i];

      if (match_pattern (family->pattern, uuid, &value) && value >= family->first
          && value <= family->last && g_ascii_strcasecmp (family->service, service) == 0)
        return value;
    }
  return 0;
}

static MiLinkFlags
parse_flags (GVariant *properties)
{
  static const struct
  {
    const char *name;
    MiLinkFlags flag;
  } known[] = {
    { "read", MI_LINK_READ },
    { "write", MI_LINK_WRITE },
    { "write-without-response", MI_LINK_WRITE_COMMAND },
    { "notify", MI_LINK_NOTIFY },
    { "indicate", MI_LINK_NOTIFY },
  };
  g_autofree const char **names = NULL;
  MiLinkFlags flags = 0;

  if (!g_variant_lookup (properties, "Flags", "^a&s", &names))
    return 0;
  for (gsize i = 0; names[i] != NULL; i++)
    for (gsize k = 0; k < G_N_ELEMENTS (known); k++)
      if (g_str_equal (names[i], known[k].name))
        flags |= known[k].flag;
  return flags;
}

static void
characteristic_free (gpointer data)
{
  MithermCharacteristic *self = data;

  g_free (self->path);
  g_free (self);
}

static gboolean
has_channel (GPtrArray *list, guint16 channel)
{
  for (guint i = 0; i < list->len; i++)
    if (((MithermCharacteristic *) list->pdata[i])->channel == channel)
      return TRUE;
  return FALSE;
}

static void
add_characteristic (GPtrArray *list, GHashTable *services, const char *path, GVariant *properties)
{
  const char *uuid = NULL, *service_path = NULL, *service = NULL;
  MithermCharacteristic *found = NULL;
  guint16 channel = 0;

  if (!g_variant_lookup (properties, "UUID", "&s", &uuid)
      || !g_variant_lookup (properties, "Service", "&o", &service_path))
    return;
  service = g_hash_table_lookup (services, service_path);
  channel = service != NULL ? mitherm_gatt_channel (service, uuid) : 0;
  if (channel == 0 || has_channel (list, channel))
    return;
  found = g_new0 (MithermCharacteristic, 1);
  found->channel = channel;
  found->flags = parse_flags (properties);
  found->path = g_strdup (path);
  g_variant_lookup (properties, "MTU", "q", &found->mtu);
  g_ptr_array_add (list, found);
}

static gboolean
is_below (const char *path, const char *parent)
{
  gsize len = strlen (parent);

  return strncmp (path, parent, len) == 0 && path[len] == '/';
}

GPtrArray *
mitherm_gatt_parse (GVariant *objects, const char *device_path)
{
  g_autoptr (GHashTable) services = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, g_free);
  GPtrArray *list = g_ptr_array_new_with_free_func (characteristic_free);
  const char *path = NULL;

  /* Services first: an object may come before its parent. */
  for (int pass = 0; pass < 2; pass++)
    {
      GVariantIter iter;
      GVariant *interfaces = NULL;

      g_variant_iter_init (&iter, objects);
      while (g_variant_iter_loop (&iter, "{&o@a{sa{sv}}}", &path, &interfaces))
        {
          g_autoptr (GVariant) properties = NULL;
          const char *uuid = NULL;

          if (!is_below (path, device_path))
            continue;
          properties = g_variant_lookup_value (
              interfaces, pass == 0 ? "org.bluez.GattService1" : "org.bluez.GattCharacteristic1",
              G_VARIANT_TYPE_VARDICT);
          if (properties == NULL)
            continue;
          if (pass == 1)
            add_characteristic (list, services, path, properties);
          else if (g_variant_lookup (properties, "UUID", "&s", &uuid))
            g_hash_table_insert (services, g_strdup (path), g_strdup (uuid));
        }
    }
  return list;
}
