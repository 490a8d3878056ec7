/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Bind keys as other programs' configurations want them. */
#include "config.h"

#include "export.h"

#include <json-glib/json-glib.h>
#include <string.h>

gboolean
export_format_from_string (const char *name, ExportFormat *format)
{
  static const char *const names[] = { [EXPORT_JSON] = "json",
                                       [EXPORT_HOMEASSISTANT] = "homeassistant",
                                       [EXPORT_ESPHOME] = "esphome",
                                       [EXPORT_BLE_MONITOR] = "ble_monitor" };

  for (gsize i = 0; i < G_N_ELEMENTS (names); i++)
    {
      if (g_str_equal (names[i], name))
        {
          *format = (ExportFormat) i;
          return TRUE;
        }
    }
  return FALSE;
}

/* The bind key in use: of the current set, else of a pending one, else none. */
static const char *
find_bind_key (JsonObject *device)
{
  static const char *const states[] = { "current", "pending" };
  JsonArray *sets = json_object_get_array_member (device, "keys");

  for (gsize i = 0; i < G_N_ELEMENTS (states); i++)
    {
      for (guint j = 0; sets != NULL && j < json_array_get_length (sets); j++)
        {
          JsonObject *set = json_array_get_object_element (sets, j);
          const char *key = json_object_get_string_member_with_default (set, "bind_key", NULL);

          if (key != NULL
              && g_strcmp0 (json_object_get_string_member_with_default (set, "state", ""),
                            states[i])
                     == 0)
            return key;
        }
    }
  return NULL;
}

/* ESPHome's platform for a model, NULL: it has none that takes a bind key. */
static const char *
esphome_platform (const char *model)
{
  static const char *const platforms[][2] = {
    { "CGD1", "xiaomi_cgd1" },
    { "CGDK2", "xiaomi_cgdk2" },
    { "CGG1", "xiaomi_cgg1" },
    { "CGG1-M", "xiaomi_cgg1" },
    { "LYWSD02MMC", "xiaomi_lywsd02mmc" },
    { "LYWSD03MMC", "xiaomi_lywsd03mmc" },
    { "MHO-C401", "xiaomi_mhoc401" },
    { "XMWSDJ04MMC", "xiaomi_xmwsdj04mmc" },
  };

  for (gsize i = 0; i < G_N_ELEMENTS (platforms); i++)
    {
      if (g_strcmp0 (platforms[i][0], model) == 0)
        return platforms[i][1];
    }
  return NULL;
}

static void
add_esphome (GString *text, const char *address, const char *model, const char *key)
{
  const char *platform = esphome_platform (model);

  if (platform == NULL)
    {
      g_string_append_printf (text, "  # %s (%s): no platform of ESPHome is known for it\n",
                              address, *model != '\0' ? model : "unknown model");
      return;
    }
  g_string_append_printf (text,
                          "  - platform: %s\n"
                          "    mac_address: \"%s\"\n"
                          "    bindkey: \"%s\"\n"
                          "    temperature:\n"
                          "      name: \"%s %s temperature\"\n"
                          "    humidity:\n"
                          "      name: \"%s %s humidity\"\n"
                          "    battery_level:\n"
                          "      name: \"%s %s battery\"\n",
                          platform, address, key, model, address, model, address, model, address);
}

static void
add_device (GString *text, JsonObject *device, ExportFormat format)
{
  const char *address = json_object_get_string_member_with_default (device, "address", "");
  const char *model = json_object_get_string_member_with_default (device, "model", "");
  const char *key = find_bind_key (device);

  if (key == NULL)
    return;
  switch (format)
    {
    case EXPORT_HOMEASSISTANT:
      g_string_append_printf (text, "- mac: \"%s\"\n  bindkey: \"%s\"  # %s\n", address, key,
                              model);
      break;
    case EXPORT_ESPHOME:
      add_esphome (text, address, model, key);
      break;
    case EXPORT_BLE_MONITOR:
      g_string_append_printf (text, "    - mac: \"%s\"\n      encryption_key: \"%s\"  # %s\n",
                              address, key, model);
      break;
    case EXPORT_JSON:
    default:
      break;
    }
}

static const char *
head_of (ExportFormat format)
{
  switch (format)
    {
    case EXPORT_HOMEASSISTANT:
      return "# Home Assistant, integration Xiaomi BLE: when it asks for a device's bindkey, enter "
             "its own.\n";
    case EXPORT_ESPHOME:
      return "sensor:\n";
    case EXPORT_BLE_MONITOR:
      return "ble_monitor:\n  devices:\n";
    case EXPORT_JSON:
    default:
      return "";
    }
}

char *
export_format (const char *json, ExportFormat format, GError **error)
{
  g_autoptr (JsonParser) parser = json_parser_new ();
  JsonNode *root;
  JsonArray *devices;
  GString *text;

  if (format == EXPORT_JSON)
    return g_strdup (json);
  if (!json_parser_load_from_data (parser, json, -1, error))
    return NULL;
  root = json_parser_get_root (parser);
  devices = json_object_get_array_member (json_node_get_object (root), "devices");
  /* Large enough never to be moved, so that no copy of a key stays behind. */
  text = g_string_sized_new (strlen (json) * 2 + json_array_get_length (devices) * 1024 + 1024);
  g_string_append (text, head_of (format));
  for (guint i = 0; i < json_array_get_length (devices); i++)
    add_device (text, json_array_get_object_element (devices, i), format);
  return g_string_free (text, FALSE);
}
