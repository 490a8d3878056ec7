/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "mitherm-tree.h"

#include <string.h>

#include "mitherm-dbus.h"

#define ROOT_PATH      "/org/mitherm"
#define DEVICE_ROOT    "/org/mitherm/device"
#define OBJECT_MANAGER "org.freedesktop.DBus.ObjectManager"

struct _MithermTree
{
  GDBusConnection *connection;
  MithermTreeFindFunc find;
  MithermTreeForeachFunc foreach;
  gpointer user_data;
  guint manager_id;
  guint subtree_id;
  GHashTable *skeletons; /* path -> GDBusInterfaceSkeleton */
};

static const char object_manager_xml[]
    = "<node><interface name='" OBJECT_MANAGER "'>"
      "<method name='GetManagedObjects'>"
      "<arg type='a{oa{sa{sv}}}' name='objects' direction='out'/></method>"
      "<signal name='InterfacesAdded'><arg type='o' name='object'/>"
      "<arg type='a{sa{sv}}' name='interfaces'/></signal>"
      "<signal name='InterfacesRemoved'><arg type='o' name='object'/>"
      "<arg type='as' name='interfaces'/></signal></interface></node>";

/* What is there */

/*
 * One block of memory instead of a hundred: what thousands of small pieces leave behind in GLib's
 * allocator is never given back.
 */
static GVariant *
compact (GVariant *value)
{
  g_variant_get_data (value);
  return value;
}

static GVariant *
device_interfaces (MithermDevice *device)
{
  GVariantBuilder builder;

  g_variant_builder_init (&builder, G_VARIANT_TYPE ("a{sa{sv}}"));
  g_variant_builder_add (&builder, "{s@a{sv}}", mitherm_dbus_device1_interface_info ()->name,
                         mitherm_device_get_properties (device, FALSE));
  if (mitherm_device_is_sensor (device))
    g_variant_builder_add (&builder, "{s@a{sv}}", mitherm_dbus_sensor1_interface_info ()->name,
                           mitherm_device_get_properties (device, TRUE));
  return compact (g_variant_builder_end (&builder));
}

static GVariant *
skeleton_interfaces (GDBusInterfaceSkeleton *skeleton)
{
  g_autoptr (GVariant) properties = g_dbus_interface_skeleton_get_properties (skeleton);
  GVariantBuilder builder;

  g_variant_builder_init (&builder, G_VARIANT_TYPE ("a{sa{sv}}"));
  g_variant_builder_add (&builder, "{s@a{sv}}", g_dbus_interface_skeleton_get_info (skeleton)->name,
                         properties);
  return g_variant_builder_end (&builder);
}

static void
list_device (gpointer device, gpointer builder)
{
  g_variant_builder_add (builder, "{o@a{sa{sv}}}", mitherm_device_get_path (device),
                         device_interfaces (device));
}

static GVariant *
list_objects (MithermTree *self)
{
  GVariantBuilder builder;
  GHashTableIter iter;
  gpointer path, skeleton;

  g_variant_builder_init (&builder, G_VARIANT_TYPE ("a{oa{sa{sv}}}"));
  self->foreach (list_device, &builder, self->user_data);
  g_hash_table_iter_init (&iter, self->skeletons);
  while (g_hash_table_iter_next (&iter, &path, &skeleton))
    g_variant_builder_add (&builder, "{o@a{sa{sv}}}", path, skeleton_interfaces (skeleton));
  return g_variant_builder_end (&builder);
}

static void
on_object_manager_call (GDBusConnection *connection, const char *sender, const char *path,
                        const char *interface, const char *method, GVariant *parameters,
                        GDBusMethodInvocation *invocation, gpointer user_data)
{
  g_dbus_method_invocation_return_value (invocation, g_variant_new ("(@a{oa{sa{sv}}})",
                                                                    list_objects (user_data)));
}

static const GDBusInterfaceVTable object_manager_vtable = { .method_call = on_object_manager_call };

static void
tell_added (MithermTree *self, const char *path, GVariant *interfaces)
{
  g_dbus_connection_emit_signal (self->connection, NULL, ROOT_PATH, OBJECT_MANAGER,
                                 "InterfacesAdded",
                                 g_variant_new ("(o@a{sa{sv}})", path, interfaces), NULL);
}

/* @other: (nullable): one more interface */
static void
tell_removed (MithermTree *self, const char *path, const char *interface, const char *other)
{
  const char *const interfaces[] = { interface, other, NULL };

  g_dbus_connection_emit_signal (self->connection, NULL, ROOT_PATH, OBJECT_MANAGER,
                                 "InterfacesRemoved", g_variant_new ("(o^as)", path, interfaces),
                                 NULL);
}

/* The subtree of thermometers */

static void
list_node (gpointer device, gpointer nodes)
{
  g_ptr_array_add (nodes, g_strdup (mitherm_device_get_path (device) + strlen (DEVICE_ROOT "/")));
}

static char **
on_enumerate (GDBusConnection *connection, const char *sender, const char *path, gpointer user_data)
{
  MithermTree *self = user_data;
  GPtrArray *nodes = g_ptr_array_new ();

  self->foreach (list_node, nodes, self->user_data);
  g_ptr_array_add (nodes, NULL);
  return (char **) g_ptr_array_free (nodes, FALSE);
}

static GDBusInterfaceInfo **
on_introspect (GDBusConnection *connection, const char *sender, const char *path, const char *node,
               gpointer user_data)
{
  MithermTree *self = user_data;
  MithermDevice *device = node != NULL ? self->find (node, self->user_data) : NULL;
  GDBusInterfaceInfo **infos;

  if (device == NULL)
    return NULL;
  infos = g_new0 (GDBusInterfaceInfo *, 3);
  infos[0] = g_dbus_interface_info_ref (mitherm_dbus_device1_interface_info ());
  if (mitherm_device_is_sensor (device))
    infos[1] = g_dbus_interface_info_ref (mitherm_dbus_sensor1_interface_info ());
  return infos;
}

static gboolean
is_sensor1 (const char *interface)
{
  return g_str_equal (interface, mitherm_dbus_sensor1_interface_info ()->name);
}

/* (nullable): the thermometer at @node, if it has @interface */
static MithermDevice *
find_device (MithermTree *self, const char *node, const char *interface)
{
  MithermDevice *device = self->find (node, self->user_data);

  if (device != NULL && is_sensor1 (interface) && !mitherm_device_is_sensor (device))
    return NULL;
  return device;
}

/*
 * GDBus asks where a call goes and delivers it later from the main loop: meanwhile the thermometer
 * may have gone, so that it is looked up again.
 */
static MithermDevice *
find_called (MithermTree *self, const char *path, const char *interface, GError **error)
{
  MithermDevice *device = find_device (self, path + strlen (DEVICE_ROOT "/"), interface);

  if (device == NULL)
    g_set_error (error, G_DBUS_ERROR, G_DBUS_ERROR_UNKNOWN_OBJECT, "%s has just gone", path);
  return device;
}

static void
on_device_call (GDBusConnection *connection, const char *sender, const char *path,
                const char *interface, const char *method, GVariant *parameters,
                GDBusMethodInvocation *invocation, gpointer user_data)
{
  GError *error = NULL;
  MithermDevice *device = find_called (user_data, path, interface, &error);

  if (device != NULL)
    mitherm_device_call (device, method, invocation);
  else
    g_dbus_method_invocation_take_error (invocation, error);
}

static GVariant *
on_device_get (GDBusConnection *connection, const char *sender, const char *path,
               const char *interface, const char *property, GError **error, gpointer user_data)
{
  MithermDevice *device = find_called (user_data, path, interface, error);

  if (device == NULL)
    return NULL;
  return g_variant_take_ref (
      mitherm_device_get_property (device, property, is_sensor1 (interface)));
}

static const GDBusInterfaceVTable device_vtable
    = { .method_call = on_device_call, .get_property = on_device_get };

static const GDBusInterfaceVTable *
on_dispatch (GDBusConnection *connection, const char *sender, const char *path,
             const char *interface, const char *node, gpointer *out_user_data, gpointer user_data)
{
  *out_user_data = user_data;
  return node != NULL && find_device (user_data, node, interface) != NULL ? &device_vtable : NULL;
}

static const GDBusSubtreeVTable subtree_vtable = {
  .enumerate = on_enumerate,
  .introspect = on_introspect,
  .dispatch = on_dispatch,
};

/* Coming and going */

void
mitherm_tree_add_device (MithermTree *self, MithermDevice *device)
{
  tell_added (self, mitherm_device_get_path (device), device_interfaces (device));
}

void
mitherm_tree_add_sensor (MithermTree *self, MithermDevice *device)
{
  GVariantBuilder builder;

  g_variant_builder_init (&builder, G_VARIANT_TYPE ("a{sa{sv}}"));
  g_variant_builder_add (&builder, "{s@a{sv}}", mitherm_dbus_sensor1_interface_info ()->name,
                         mitherm_device_get_properties (device, TRUE));
  tell_added (self, mitherm_device_get_path (device), compact (g_variant_builder_end (&builder)));
}

void
mitherm_tree_remove_device (MithermTree *self, MithermDevice *device)
{
  tell_removed (
      self, mitherm_device_get_path (device), mitherm_dbus_device1_interface_info ()->name,
      mitherm_device_is_sensor (device) ? mitherm_dbus_sensor1_interface_info ()->name : NULL);
}

void
mitherm_tree_add (MithermTree *self, const char *path, GDBusInterfaceSkeleton *skeleton)
{
  g_autoptr (GError) error = NULL;

  if (!g_dbus_interface_skeleton_export (skeleton, self->connection, path, &error))
    {
      g_warning ("%s cannot be exported: %s", path, error->message);
      return;
    }
  g_hash_table_insert (self->skeletons, g_strdup (path), g_object_ref (skeleton));
  tell_added (self, path, skeleton_interfaces (skeleton));
}

void
mitherm_tree_remove (MithermTree *self, const char *path)
{
  GDBusInterfaceSkeleton *skeleton = g_hash_table_lookup (self->skeletons, path);

  if (skeleton == NULL)
    return;
  tell_removed (self, path, g_dbus_interface_skeleton_get_info (skeleton)->name, NULL);
  g_dbus_interface_skeleton_unexport (skeleton);
  g_hash_table_remove (self->skeletons, path);
}

MithermTree *
mitherm_tree_new (GDBusConnection *connection, MithermTreeFindFunc find,
                  MithermTreeForeachFunc foreach, gpointer user_data, GError **error)
{
  MithermTree *self = g_new0 (MithermTree, 1);
  g_autoptr (GDBusNodeInfo) info = g_dbus_node_info_new_for_xml (object_manager_xml, NULL);

  self->connection = g_object_ref (connection);
  self->find = find;
  self->foreach = foreach;
  self->user_data = user_data;
  self->skeletons = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, g_object_unref);
  self->manager_id = g_dbus_connection_register_object (connection, ROOT_PATH, info->interfaces[0],
                                                        &object_manager_vtable, self, NULL, error);
  if (self->manager_id != 0)
    self->subtree_id
        = g_dbus_connection_register_subtree (connection, DEVICE_ROOT, &subtree_vtable,
                                              G_DBUS_SUBTREE_FLAGS_DISPATCH_TO_UNENUMERATED_NODES,
                                              self, NULL, error);
  if (self->subtree_id == 0)
    g_clear_pointer (&self, mitherm_tree_free);
  return self;
}

void
mitherm_tree_free (MithermTree *self)
{
  GHashTableIter iter;
  gpointer skeleton;

  if (self == NULL)
    return;
  if (self->subtree_id != 0)
    g_dbus_connection_unregister_subtree (self->connection, self->subtree_id);
  if (self->manager_id != 0)
    g_dbus_connection_unregister_object (self->connection, self->manager_id);
  g_hash_table_iter_init (&iter, self->skeletons);
  while (g_hash_table_iter_next (&iter, NULL, &skeleton))
    g_dbus_interface_skeleton_unexport (skeleton);
  g_hash_table_unref (self->skeletons);
  g_object_unref (self->connection);
  g_free (self);
}
