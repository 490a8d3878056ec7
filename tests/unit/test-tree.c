/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "bus.h"
#include "mitherm-tree.h"

#include <glib/gstdio.h>

#include "sim-radio.h"

/* Thermometers on a private bus that go while somebody calls them. */

#define NODE     "A4_C1_38_00_00_01"
#define ADDRESS  "A4:C1:38:00:00:01"
#define PATH     "/org/mitherm/device/" NODE
#define LIMIT_MS 20000

typedef struct
{
  GTestDBus *dbus;
  GDBusConnection *server;
  GDBusConnection *client;
  char *dir;
  SimRadioMock *radio;
  MithermStore *store;
  MiModels *models;
  MithermManager *manager;
  MithermTree *tree;
  MithermDevice *device; /* NULL: it has gone */
  gboolean going;
  GVariant *reply;
  GError *error;
} Fixture;

static gboolean
drop_device (gpointer data)
{
  Fixture *f = data;

  g_clear_object (&f->device);
  return G_SOURCE_REMOVE;
}

/* Once it was looked up, the device goes before anything else happens. */
static MithermDevice *
find_and_drop (const char *node, gpointer data)
{
  Fixture *f = data;

  if (!f->going)
    g_idle_add_full (G_PRIORITY_HIGH, drop_device, f, NULL);
  f->going = TRUE;
  return f->device;
}

static void
foreach_none (GFunc func, gpointer func_data, gpointer data)
{
}

static void
set_up (Fixture *f, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  MithermManagerConfig config = { 0 };

  f->dbus = g_test_dbus_new (G_TEST_DBUS_NONE);
  g_test_dbus_up (f->dbus);
  f->server = bus_connect (f->dbus);
  f->client = bus_connect (f->dbus);
  f->dir = g_dir_make_tmp ("mitherm-tree-XXXXXX", NULL);
  f->store = mitherm_store_new (f->dir, &error);
  g_assert_no_error (error);
  f->models = mi_models_load (MITHERM_SOURCE_DATA_DIR, NULL, NULL);
  f->radio = sim_radio_new ("[" ADDRESS "]\nModel=LYWSD03MMC\n");
  config.radio = MITHERM_RADIO (f->radio);
  config.store = f->store;
  config.models = f->models;
  f->manager = mitherm_manager_new (&config);
  f->device = mitherm_device_new (f->manager, ADDRESS);
  f->tree = mitherm_tree_new (f->server, find_and_drop, foreach_none, f, &error);
  g_assert_no_error (error);
}

static void
tear_down (Fixture *f, gconstpointer data)
{
  g_autofree char *keys = g_build_filename (f->dir, "keys", NULL);

  mitherm_tree_free (f->tree);
  g_clear_object (&f->device);
  g_clear_pointer (&f->reply, g_variant_unref);
  g_clear_error (&f->error);
  mitherm_manager_stop (f->manager);
  g_assert_finalize_object (f->manager);
  g_assert_finalize_object (f->radio);
  mi_models_free (f->models);
  mitherm_store_free (f->store);
  g_rmdir (keys);
  g_rmdir (f->dir);
  g_free (f->dir);
  g_dbus_connection_close_sync (f->client, NULL, NULL);
  g_dbus_connection_close_sync (f->server, NULL, NULL);
  g_object_unref (f->client);
  g_object_unref (f->server);
  g_test_dbus_down (f->dbus);
  g_object_unref (f->dbus);
}

static void
on_reply (GObject *source, GAsyncResult *result, gpointer data)
{
  Fixture *f = data;

  f->reply = g_dbus_connection_call_finish (G_DBUS_CONNECTION (source), result, &f->error);
}

static void
call (Fixture *f, const char *interface, const char *method, GVariant *parameters)
{
  g_dbus_connection_call (f->client, g_dbus_connection_get_unique_name (f->server), PATH, interface,
                          method, parameters, NULL, G_DBUS_CALL_FLAGS_NONE, LIMIT_MS, NULL,
                          on_reply, f);
  while (f->reply == NULL && f->error == NULL)
    g_main_context_iteration (NULL, TRUE);
  g_assert_null (f->device);
}

static void
test_method (Fixture *f, gconstpointer data)
{
  call (f, "org.mitherm.Device1", "ReadInfo", NULL);
  g_assert_error (f->error, G_DBUS_ERROR, G_DBUS_ERROR_UNKNOWN_OBJECT);
}

static void
test_property (Fixture *f, gconstpointer data)
{
  call (f, "org.freedesktop.DBus.Properties", "Get",
        g_variant_new ("(ss)", "org.mitherm.Device1", "Name"));
  g_assert_error (f->error, G_DBUS_ERROR, G_DBUS_ERROR_UNKNOWN_OBJECT);
}

static void
test_properties (Fixture *f, gconstpointer data)
{
  call (f, "org.freedesktop.DBus.Properties", "GetAll",
        g_variant_new ("(s)", "org.mitherm.Device1"));
  /* GDBus leaves out what cannot be had. */
  g_assert_no_error (f->error);
  g_assert_cmpstr (g_variant_get_type_string (f->reply), ==, "(a{sv})");
}

#define ADD(path, func) g_test_add (path, Fixture, NULL, set_up, func, tear_down)

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  ADD ("/tree/thermometer-goes-during-a-call", test_method);
  ADD ("/tree/thermometer-goes-while-a-property-is-read", test_property);
  ADD ("/tree/thermometer-goes-while-all-properties-are-read", test_properties);
  return g_test_run ();
}
