/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "sim-peripheral-private.h"

#include <errno.h>
#include <gio/gunixfdlist.h>
#include <glib-unix.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define IFACE_SERVICE "org.bluez.GattService1"
#define IFACE_CHRC    "org.bluez.GattCharacteristic1"

typedef struct
{
  PeripheralApp *app;
  char *path;
  char *uuid;
  guint registration;
} Service;

typedef struct
{
  PeripheralApp *app;
  const Service *service;
  char *path;
  char *uuid;
  guint16 channel;
  MiLinkFlags flags;
  gboolean notifying;
  int write_fd; /* -1: not acquired. It survives disconnection. */
  GSource *write_source;
  guint registration;
} Chrc;

struct _PeripheralApp
{
  Peripheral *peripheral;
  char *path;
  guint registration;
  GPtrArray *services;
  GPtrArray *chrcs;
};

static const char introspection_xml[]
    = "<node>"
      "<interface name='org.freedesktop.DBus.ObjectManager'>"
      "<method name='GetManagedObjects'>"
      "<arg name='objects' type='a{oa{sa{sv}}}' direction='out'/></method></interface>"
      "<interface name='org.bluez.GattService1'>"
      "<property name='UUID' type='s' access='read'/>"
      "<property name='Primary' type='b' access='read'/></interface>"
      "<interface name='org.bluez.GattCharacteristic1'>"
      "<method name='ReadValue'><arg name='options' type='a{sv}' direction='in'/>"
      "<arg name='value' type='ay' direction='out'/></method>"
      "<method name='WriteValue'><arg name='value' type='ay' direction='in'/>"
      "<arg name='options' type='a{sv}' direction='in'/></method>"
      "<method name='AcquireWrite'><arg name='options' type='a{sv}' direction='in'/>"
      "<arg name='fd' type='h' direction='out'/><arg name='mtu' type='q' direction='out'/></method>"
      "<method name='StartNotify'/><method name='StopNotify'/>"
      "<property name='UUID' type='s' access='read'/>"
      "<property name='Service' type='o' access='read'/>"
      "<property name='Flags' type='as' access='read'/>"
      "<property name='WriteAcquired' type='b' access='read'/>"
      "</interface></node>";

static GDBusInterfaceInfo *
get_interface (const char *name)
{
  static GDBusNodeInfo *node;

  if (node == NULL)
    node = g_dbus_node_info_new_for_xml (introspection_xml, NULL);
  g_return_val_if_fail (node != NULL, NULL);
  return g_dbus_node_info_lookup_interface (node, name);
}

static void
refuse (GDBusMethodInvocation *invocation, const char *name, const char *message)
{
  g_autofree char *full = g_strconcat ("org.bluez.Error.", name, NULL);

  g_dbus_method_invocation_return_dbus_error (invocation, full, message);
}

/* --- packets --- */

/* Returns: FALSE + error: refused; the outputs are still to be taken */
static gboolean
write_packet (Chrc *chrc, const guint8 *data, gsize len, GError **error)
{
  Peripheral *peripheral = chrc->app->peripheral;

  return sim_device_write (peripheral->sim, sim_now_ms (), chrc->channel, data, len, error);
}

static void
release_socket (Chrc *chrc)
{
  if (chrc->write_fd < 0)
    return;
  g_source_destroy (chrc->write_source);
  g_clear_pointer (&chrc->write_source, g_source_unref);
  close (chrc->write_fd);
  chrc->write_fd = -1;
}

static void
drain_socket (Chrc *chrc)
{
  while (chrc->write_fd >= 0)
    {
      guint8 packet[SIM_PACKET_MAX];
      gssize len = recv (chrc->write_fd, packet, sizeof packet, MSG_DONTWAIT);
      g_autoptr (GError) error = NULL;

      if (len < 0 && errno == EINTR)
        continue;
      if (len < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return;
      if (len <= 0)
        release_socket (chrc);
      else if (!write_packet (chrc, packet, (gsize) len, &error))
        g_debug ("%s: packet of %zd bytes: %s", chrc->path, len, error->message);
    }
}

static gboolean
on_socket (int fd, GIOCondition condition, gpointer user_data)
{
  Chrc *chrc = user_data;
  Peripheral *peripheral = chrc->app->peripheral;

  drain_socket (chrc);
  peripheral_pump (peripheral);
  return G_SOURCE_CONTINUE; /* release_socket() has destroyed the source if need be */
}

/* --- calls of bluetoothd --- */

static void
note_central (Chrc *chrc, GVariant *options)
{
  const char *path = NULL;

  if (g_variant_lookup (options, "device", "&o", &path))
    peripheral_saw_central (chrc->app->peripheral, path);
}

static void
read_value (Chrc *chrc, GVariant *parameters, GDBusMethodInvocation *invocation)
{
  Peripheral *peripheral = chrc->app->peripheral;
  g_autoptr (GVariant) options = g_variant_get_child_value (parameters, 0);
  g_autoptr (GError) error = NULL;
  guint8 value[SIM_PACKET_MAX];
  gsize len = sizeof value;
  guint16 offset = 0;

  note_central (chrc, options);
  /* What the host wrote before lies in the socket: a read is a barrier. */
  for (guint i = 0; i < chrc->app->chrcs->len; i++)
    drain_socket (chrc->app->chrcs->pdata[i]);
  g_variant_lookup (options, "offset", "q", &offset);
  if (!sim_device_read (peripheral->sim, sim_now_ms (), chrc->channel, value, &len, &error))
    refuse (invocation, "Failed", error->message);
  else if (offset > len)
    refuse (invocation, "InvalidOffset", "offset");
  else
    g_dbus_method_invocation_return_value (
        invocation,
        g_variant_new ("(@ay)", g_variant_new_fixed_array (G_VARIANT_TYPE_BYTE, value + offset,
                                                           len - offset, 1)));
  peripheral_pump (peripheral);
}

static void
write_value (Chrc *chrc, GVariant *parameters, GDBusMethodInvocation *invocation)
{
  Peripheral *peripheral = chrc->app->peripheral;
  g_autoptr (GVariant) value = g_variant_get_child_value (parameters, 0);
  g_autoptr (GVariant) options = g_variant_get_child_value (parameters, 1);
  g_autoptr (GError) error = NULL;
  gsize len = 0;
  const guint8 *data = g_variant_get_fixed_array (value, &len, 1);
  guint16 offset = 0;

  note_central (chrc, options);
  drain_socket (chrc);
  g_variant_lookup (options, "offset", "q", &offset);
  if (offset > 0) /* thermometers know no prepared writes */
    refuse (invocation, "NotSupported", "long writes");
  else if (write_packet (chrc, len > 0 ? data : (const guint8 *) "", len, &error))
    g_dbus_method_invocation_return_value (invocation, NULL);
  else
    refuse (invocation, "Failed", error->message);
  peripheral_pump (peripheral);
}

static void
acquire_write (Chrc *chrc, GVariant *parameters, GDBusMethodInvocation *invocation)
{
  g_autoptr (GVariant) options = g_variant_get_child_value (parameters, 0);
  g_autoptr (GUnixFDList) list = NULL;
  guint16 mtu = chrc->app->peripheral->att_payload + 3;
  int fds[2];

  note_central (chrc, options);
  g_variant_lookup (options, "mtu", "q", &mtu);
  release_socket (chrc);
  if (socketpair (AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) < 0)
    {
      refuse (invocation, "Failed", g_strerror (errno));
      return;
    }
  chrc->write_fd = fds[0];
  chrc->write_source = g_unix_fd_source_new (fds[0], G_IO_IN | G_IO_HUP);
  g_source_set_callback (chrc->write_source, G_SOURCE_FUNC (on_socket), chrc, NULL);
  g_source_attach (chrc->write_source, NULL);
  list = g_unix_fd_list_new_from_array (&fds[1], 1);
  g_dbus_method_invocation_return_value_with_unix_fd_list (invocation,
                                                           g_variant_new ("(hq)", 0, mtu), list);
}

static void
on_chrc_call (GDBusConnection *connection, const char *sender, const char *path,
              const char *interface, const char *method, GVariant *parameters,
              GDBusMethodInvocation *invocation, gpointer user_data)
{
  Chrc *chrc = user_data;

  if (g_str_equal (method, "ReadValue"))
    read_value (chrc, parameters, invocation);
  else if (g_str_equal (method, "WriteValue"))
    write_value (chrc, parameters, invocation);
  else if (g_str_equal (method, "AcquireWrite"))
    acquire_write (chrc, parameters, invocation);
  else
    {
      chrc->notifying = g_str_equal (method, "StartNotify");
      g_dbus_method_invocation_return_value (invocation, NULL);
    }
}

/* --- properties --- */

/*
 * Only bulk data goes through a socket. bluetoothd 5.66 has a fault: writes that arrive while it
 * asks for the socket are all delivered with the content of the last one; before an upload that
 * makes two start commands of a version request and a start command, which is harmless.
 */
static gboolean
offers_socket (const Chrc *chrc)
{
  return chrc->channel == MI_CHANNEL_OTA && (chrc->flags & MI_LINK_WRITE_COMMAND) != 0;
}

static GVariant *
get_flags (const Chrc *chrc)
{
  const char *flags[5];
  guint n = 0;

  if ((chrc->flags & MI_LINK_READ) != 0)
    flags[n++] = "read";
  if ((chrc->flags & MI_LINK_WRITE_COMMAND) != 0)
    flags[n++] = "write-without-response";
  if ((chrc->flags & MI_LINK_WRITE) != 0)
    flags[n++] = "write";
  if ((chrc->flags & MI_LINK_NOTIFY) != 0)
    flags[n++] = "notify";
  return g_variant_new_strv (flags, n);
}

static GVariant *
get_chrc_property (GDBusConnection *connection, const char *sender, const char *path,
                   const char *interface, const char *property, GError **error, gpointer user_data)
{
  Chrc *chrc = user_data;

  if (g_str_equal (property, "UUID"))
    return g_variant_new_string (chrc->uuid);
  if (g_str_equal (property, "Service"))
    return g_variant_new_object_path (chrc->service->path);
  if (g_str_equal (property, "Flags"))
    return get_flags (chrc);
  if (offers_socket (chrc))
    return g_variant_new_boolean (chrc->write_fd >= 0);
  g_set_error (error, G_DBUS_ERROR, G_DBUS_ERROR_INVALID_ARGS, "No such property '%s'", property);
  return NULL;
}

static GVariant *
get_service_property (GDBusConnection *connection, const char *sender, const char *path,
                      const char *interface, const char *property, GError **error,
                      gpointer user_data)
{
  Service *service = user_data;

  if (g_str_equal (property, "UUID"))
    return g_variant_new_string (service->uuid);
  return g_variant_new_boolean (TRUE); /* Primary */
}

/* --- the tree --- */

static GVariant *
get_service_interfaces (Service *service)
{
  GVariantBuilder properties;
  GVariantBuilder interfaces;

  g_variant_builder_init (&properties, G_VARIANT_TYPE_VARDICT);
  g_variant_builder_add (&properties, "{sv}", "UUID", g_variant_new_string (service->uuid));
  g_variant_builder_add (&properties, "{sv}", "Primary", g_variant_new_boolean (TRUE));
  g_variant_builder_init (&interfaces, G_VARIANT_TYPE ("a{sa{sv}}"));
  g_variant_builder_add (&interfaces, "{sa{sv}}", IFACE_SERVICE, &properties);
  return g_variant_builder_end (&interfaces);
}

static GVariant *
get_chrc_interfaces (Chrc *chrc)
{
  GVariantBuilder properties;
  GVariantBuilder interfaces;

  g_variant_builder_init (&properties, G_VARIANT_TYPE_VARDICT);
  g_variant_builder_add (&properties, "{sv}", "UUID", g_variant_new_string (chrc->uuid));
  g_variant_builder_add (&properties, "{sv}", "Service",
                         g_variant_new_object_path (chrc->service->path));
  g_variant_builder_add (&properties, "{sv}", "Flags", get_flags (chrc));
  if (offers_socket (chrc))
    g_variant_builder_add (&properties, "{sv}", "WriteAcquired", g_variant_new_boolean (FALSE));
  g_variant_builder_init (&interfaces, G_VARIANT_TYPE ("a{sa{sv}}"));
  g_variant_builder_add (&interfaces, "{sa{sv}}", IFACE_CHRC, &properties);
  return g_variant_builder_end (&interfaces);
}

static void
on_root_call (GDBusConnection *connection, const char *sender, const char *path,
              const char *interface, const char *method, GVariant *parameters,
              GDBusMethodInvocation *invocation, gpointer user_data)
{
  PeripheralApp *app = user_data;
  GVariantBuilder builder;

  g_variant_builder_init (&builder, G_VARIANT_TYPE ("a{oa{sa{sv}}}"));
  for (guint i = 0; i < app->services->len; i++)
    {
      Service *service = app->services->pdata[i];

      g_variant_builder_add (&builder, "{o@a{sa{sv}}}", service->path,
                             get_service_interfaces (service));
    }
  for (guint i = 0; i < app->chrcs->len; i++)
    {
      Chrc *chrc = app->chrcs->pdata[i];

      g_variant_builder_add (&builder, "{o@a{sa{sv}}}", chrc->path, get_chrc_interfaces (chrc));
    }
  g_dbus_method_invocation_return_value (invocation, g_variant_new ("(a{oa{sa{sv}}})", &builder));
}

static guint export(PeripheralApp *app, const char *path, const char *interface,
                    const GDBusInterfaceVTable *vtable, gpointer data)
{
  g_autoptr (GError) error = NULL;
  guint id = g_dbus_connection_register_object (
      app->peripheral->connection, path, get_interface (interface), vtable, data, NULL, &error);

  if (id == 0)
    g_warning ("%s: %s", path, error->message);
  return id;
}

static void
service_free (gpointer data)
{
  Service *service = data;

  g_dbus_connection_unregister_object (service->app->peripheral->connection, service->registration);
  g_free (service->path);
  g_free (service->uuid);
  g_free (service);
}

static void
chrc_free (gpointer data)
{
  Chrc *chrc = data;

  release_socket (chrc);
  g_dbus_connection_unregister_object (chrc->app->peripheral->connection, chrc->registration);
  g_free (chrc->path);
  g_free (chrc->uuid);
  g_free (chrc);
}

static const Service *
add_service (PeripheralApp *app, const char *uuid)
{
  static const GDBusInterfaceVTable vtable = { .get_property = get_service_property };
  Service *service = g_new0 (Service, 1);

  service->app = app;
  service->uuid = g_strdup (uuid);
  service->path = g_strdup_printf ("%s/service%u", app->path, app->services->len);
  service->registration = export(app, service->path, IFACE_SERVICE, &vtable, service);
  g_ptr_array_add (app->services, service);
  return service;
}

static void
add_chrc (PeripheralApp *app, const Service *service, const SimCharacteristic *info)
{
  static const GDBusInterfaceVTable vtable
      = { .method_call = on_chrc_call, .get_property = get_chrc_property };
  Chrc *chrc = g_new0 (Chrc, 1);

  chrc->app = app;
  chrc->service = service;
  chrc->uuid = g_strdup (info->uuid);
  chrc->channel = info->channel;
  chrc->flags = info->flags;
  chrc->write_fd = -1;
  chrc->path = g_strdup_printf ("%s/char%u", service->path, app->chrcs->len);
  chrc->registration = export(app, chrc->path, IFACE_CHRC, &vtable, chrc);
  g_ptr_array_add (app->chrcs, chrc);
}

PeripheralApp *
peripheral_app_new (Peripheral *self)
{
  static const GDBusInterfaceVTable vtable = { .method_call = on_root_call };
  PeripheralApp *app = g_new0 (PeripheralApp, 1);
  const Service *service = NULL;
  guint n;
  const SimCharacteristic *info = sim_device_get_gatt (self->sim, &n);

  app->peripheral = self;
  app->path = g_strdup_printf ("/org/mitherm/sim/app%u", self->generation++);
  app->services = g_ptr_array_new_with_free_func (service_free);
  app->chrcs = g_ptr_array_new_with_free_func (chrc_free);
  app->registration = export(app, app->path, "org.freedesktop.DBus.ObjectManager", &vtable, app);
  for (guint i = 0; i < n; i++)
    {
      if (service == NULL || !g_str_equal (service->uuid, info[i].service))
        service = add_service (app, info[i].service);
      add_chrc (app, service, &info[i]);
    }
  return app;
}

void
peripheral_app_free (PeripheralApp *app)
{
  g_dbus_connection_unregister_object (app->peripheral->connection, app->registration);
  g_ptr_array_unref (app->chrcs);
  g_ptr_array_unref (app->services);
  g_free (app->path);
  g_free (app);
}

const char *
peripheral_app_get_path (PeripheralApp *app)
{
  return app->path;
}

void
peripheral_app_notify (PeripheralApp *app, guint16 channel, const guint8 *data, gsize len)
{
  for (guint i = 0; i < app->chrcs->len; i++)
    {
      Chrc *chrc = app->chrcs->pdata[i];
      GVariantBuilder changed;

      if (chrc->channel != channel || !chrc->notifying)
        continue;
      g_variant_builder_init (&changed, G_VARIANT_TYPE_VARDICT);
      g_variant_builder_add (&changed, "{sv}", "Value",
                             g_variant_new_fixed_array (G_VARIANT_TYPE_BYTE, data, len, 1));
      g_dbus_connection_emit_signal (app->peripheral->connection, NULL, chrc->path,
                                     "org.freedesktop.DBus.Properties", "PropertiesChanged",
                                     g_variant_new ("(sa{sv}as)", IFACE_CHRC, &changed, NULL),
                                     NULL);
      return;
    }
}

void
peripheral_app_reset (PeripheralApp *app)
{
  for (guint i = 0; i < app->chrcs->len; i++)
    ((Chrc *) app->chrcs->pdata[i])->notifying = FALSE;
}
