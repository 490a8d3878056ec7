/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "sim-fake-private.h"

#include <errno.h>
#include <gio/gunixfdlist.h>
#include <glib-unix.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static FakeLink *
get_link (FakeChrc *chrc)
{
  FakeDevice *device = chrc->service->device;

  return device->peer->linked == device ? device->peer->link : NULL;
}

/* bluetoothd has a GATT client only between ServicesResolved and disconnection. */
static FakeLink *
get_ready_link (FakeChrc *chrc, GDBusMethodInvocation *invocation)
{
  FakeLink *link = chrc->service->device->resolved ? get_link (chrc) : NULL;

  if (link == NULL)
    fake_failed (invocation, "Not connected");
  return link;
}

/* --- sockets --- */

static void
release_write (FakeChrc *chrc)
{
  if (chrc->write_fd < 0)
    return;
  g_source_destroy (chrc->write_source);
  g_clear_pointer (&chrc->write_source, g_source_unref);
  close (chrc->write_fd);
  chrc->write_fd = -1;
  fake_object_changed (chrc->object, "WriteAcquired", NULL);
}

static void
release_notify (FakeChrc *chrc)
{
  if (chrc->notify_fd < 0)
    return;
  g_source_destroy (chrc->notify_source);
  g_clear_pointer (&chrc->notify_source, g_source_unref);
  close (chrc->notify_fd);
  chrc->notify_fd = -1;
  chrc->notifying = FALSE;
  fake_object_changed (chrc->object, "NotifyAcquired", "Notifying", NULL);
}

/* Sends what lies in the socket. The link, and with it the socket, may go meanwhile. */
static void
drain_socket (FakeChrc *chrc)
{
  FakeDevice *device = chrc->service->device;
  FakePeer *peer = device->peer;

  while (chrc->write_fd >= 0)
    {
      guint8 packet[SIM_PACKET_MAX + 1];
      gssize len = recv (chrc->write_fd, packet, sizeof packet, MSG_DONTWAIT);

      if (len < 0 && errno == EINTR)
        continue;
      if (len < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return;
      if (len <= 0)
        {
          release_write (chrc);
          return;
        }
      if ((gsize) len > peer->att_payload)
        continue; /* as bluetoothd: it vanishes without an error */
      fake_link_send (get_link (chrc), FAKE_WRITE_COMMAND, chrc, packet, (gsize) len);
      if (peer->linked != device)
        return; /* the link has gone: @chrc may have gone too */
    }
}

static gboolean
on_write_socket (int fd, GIOCondition condition, gpointer user_data)
{
  drain_socket (user_data);
  return G_SOURCE_CONTINUE; /* release_write() has destroyed the source if need be */
}

static gboolean
on_notify_socket (int fd, GIOCondition condition, gpointer user_data)
{
  release_notify (user_data);
  return G_SOURCE_CONTINUE;
}

void
fake_gatt_drain (FakeDevice *device)
{
  FakePeer *peer = device->peer;

  for (guint i = 0; device->services != NULL && i < device->services->len; i++)
    {
      FakeService *service = device->services->pdata[i];

      for (guint j = 0; j < service->chrcs->len; j++)
        {
          drain_socket (service->chrcs->pdata[j]);
          if (peer->linked != device)
            return;
        }
    }
}

static GSource *
watch_socket (int fd, GIOCondition condition, GUnixFDSourceFunc func, FakeChrc *chrc)
{
  GSource *source = g_unix_fd_source_new (fd, condition);

  g_source_set_callback (source, G_SOURCE_FUNC (func), chrc, NULL);
  g_source_attach (source, g_main_context_get_thread_default ());
  return source;
}

/* Returns: our end; the other one goes out with the answer. -1: answered with an error */
static int
answer_with_socket (FakeChrc *chrc, GDBusMethodInvocation *invocation)
{
  int fds[2];
  g_autoptr (GUnixFDList) list = NULL;
  guint16 mtu = chrc->service->device->peer->att_payload + 3;

  if (socketpair (AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) < 0)
    {
      fake_failed (invocation, g_strerror (errno));
      return -1;
    }
  list = g_unix_fd_list_new_from_array (&fds[1], 1);
  g_dbus_method_invocation_return_value_with_unix_fd_list (invocation,
                                                           g_variant_new ("(hq)", 0, mtu), list);
  return fds[0];
}

static void
acquire_write (FakeChrc *chrc, GDBusMethodInvocation *invocation)
{
  if (get_ready_link (chrc, invocation) == NULL)
    return;
  if (chrc->write_fd >= 0)
    {
      fake_error (invocation, "NotPermitted", "Write acquired");
      return;
    }
  if ((chrc->flags & MI_LINK_WRITE_COMMAND) == 0 || chrc->object->bluez->mischief.no_acquire)
    {
      fake_error (invocation, "NotSupported", "Operation is not supported");
      return;
    }
  chrc->write_fd = answer_with_socket (chrc, invocation);
  if (chrc->write_fd < 0)
    return;
  chrc->write_source = watch_socket (chrc->write_fd, G_IO_IN | G_IO_HUP, on_write_socket, chrc);
  fake_object_changed (chrc->object, "WriteAcquired", NULL);
}

/* --- notifications --- */

static void
set_value (FakeChrc *chrc, const guint8 *data, gsize len)
{
  g_clear_pointer (&chrc->value, g_bytes_unref);
  chrc->value = g_bytes_new (data, len);
  fake_object_changed (chrc->object, "Value", NULL);
}

static void
set_notifying (FakeChrc *chrc, gboolean notifying)
{
  if (chrc->notifying == notifying)
    return;
  chrc->notifying = notifying;
  fake_object_changed (chrc->object, "Notifying", NULL);
}

static FakeChrc *
find_chrc (FakeDevice *device, guint16 handle)
{
  for (guint i = 0; device->services != NULL && i < device->services->len; i++)
    {
      FakeService *service = device->services->pdata[i];

      for (guint j = 0; j < service->chrcs->len; j++)
        if (((FakeChrc *) service->chrcs->pdata[j])->handle == handle)
          return service->chrcs->pdata[j];
    }
  return NULL;
}

void
fake_gatt_notify (FakeDevice *device, guint16 handle, const guint8 *data, gsize len)
{
  FakeChrc *chrc = find_chrc (device, handle);

  if (chrc == NULL || !chrc->notifying)
    return;
  if (chrc->notify_fd >= 0)
    {
      /* A reader that lags loses packets, as with bluetoothd. */
      if (send (chrc->notify_fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        g_debug ("%s: notification lost: %s", chrc->object->path, g_strerror (errno));
      return;
    }
  /* One signal for each subscriber, and each subscriber hears them all. */
  for (guint i = 0; i < chrc->sessions->len; i++)
    set_value (chrc, data, len);
}

static gboolean
has_session (FakeChrc *chrc, const char *sender, guint *index)
{
  return g_ptr_array_find_with_equal_func (chrc->sessions, sender, g_str_equal, index);
}

static gboolean
is_acquire (GDBusMethodInvocation *invocation)
{
  return g_str_equal (g_dbus_method_invocation_get_method_name (invocation), "AcquireNotify");
}

static void
start_notify (FakeChrc *chrc, const char *sender, GDBusMethodInvocation *invocation)
{
  FakeLink *link = chrc->service->device->resolved ? get_link (chrc) : NULL;

  if (chrc->notify_fd >= 0)
    fake_error (invocation, "NotPermitted", "Notify acquired");
  else if ((chrc->flags & MI_LINK_NOTIFY) == 0)
    fake_error (invocation, "NotSupported", "Operation is not supported");
  else if (has_session (chrc, sender, NULL) && chrc->notifying)
    g_dbus_method_invocation_return_value (invocation, NULL);
  else if (link == NULL) /* the session begins when the device is connected */
    {
      if (!has_session (chrc, sender, NULL))
        g_ptr_array_add (chrc->sessions, g_strdup (sender));
      g_dbus_method_invocation_return_value (invocation, NULL);
    }
  else
    {
      g_ptr_array_add (chrc->subscribing, invocation);
      fake_link_send (link, FAKE_SUBSCRIBE_REQUEST, chrc, NULL, 0);
    }
}

static void
acquire_notify (FakeChrc *chrc, GDBusMethodInvocation *invocation)
{
  FakeLink *link = get_ready_link (chrc, invocation);

  if (link == NULL)
    return;
  if (chrc->notify_fd >= 0)
    fake_error (invocation, "NotPermitted", "Notify acquired");
  else if (chrc->sessions->len > 0 || chrc->subscribing->len > 0)
    fake_error (invocation, "InProgress", "In Progress");
  else if ((chrc->flags & MI_LINK_NOTIFY) == 0 || chrc->object->bluez->mischief.no_acquire)
    fake_error (invocation, "NotSupported", "Operation is not supported");
  else
    {
      g_ptr_array_add (chrc->subscribing, invocation);
      fake_link_send (link, FAKE_SUBSCRIBE_REQUEST, chrc, NULL, 0);
    }
}

static void
finish_acquire_notify (FakeChrc *chrc, GDBusMethodInvocation *invocation)
{
  chrc->notify_fd = answer_with_socket (chrc, invocation);
  if (chrc->notify_fd < 0)
    return;
  chrc->notify_source = watch_socket (chrc->notify_fd, G_IO_HUP, on_notify_socket, chrc);
  chrc->notifying = TRUE;
  fake_object_changed (chrc->object, "NotifyAcquired", "Notifying", NULL);
}

void
fake_chrc_subscribe_done (FakeChrc *chrc, FakeAttError code)
{
  GDBusMethodInvocation *invocation;
  const char *sender;

  if (chrc->subscribing->len == 0)
    {
      set_notifying (chrc, code == FAKE_ATT_OK && chrc->sessions->len > 0); /* renewed by itself */
      return;
    }
  invocation = g_ptr_array_steal_index (chrc->subscribing, 0);
  sender = g_dbus_method_invocation_get_sender (invocation);
  if (code == FAKE_ATT_OK && is_acquire (invocation))
    finish_acquire_notify (chrc, invocation);
  else if (code == FAKE_ATT_OK)
    {
      if (!has_session (chrc, sender, NULL))
        g_ptr_array_add (chrc->sessions, g_strdup (sender));
      set_notifying (chrc, TRUE);
      g_dbus_method_invocation_return_value (invocation, NULL);
    }
  else if (is_acquire (invocation) && code != FAKE_ATT_UNLIKELY)
    g_object_unref (invocation); /* bluetoothd 5.66 never answers this one */
  else
    fake_att_error (invocation, code);
}

static void
stop_notify (FakeChrc *chrc, const char *sender, GDBusMethodInvocation *invocation)
{
  guint index;

  if (!has_session (chrc, sender, &index))
    {
      fake_failed (invocation, "No notify session started");
      return;
    }
  g_ptr_array_remove_index (chrc->sessions, index);
  if (chrc->sessions->len == 0)
    set_notifying (chrc, FALSE);
  g_dbus_method_invocation_return_value (invocation, NULL);
}

/* --- reading and writing --- */

static void
read_value (FakeChrc *chrc, GDBusMethodInvocation *invocation)
{
  FakeDevice *device = chrc->service->device;
  FakePeer *peer = device->peer;

  if (get_ready_link (chrc, invocation) == NULL)
    return;
  /* A read that comes while one is on its way shares its answer. */
  g_ptr_array_add (chrc->reads, invocation);
  if (chrc->reads->len > 1)
    return;
  fake_gatt_drain (device); /* may end the link, and with it this call */
  if (peer->linked == device)
    fake_link_send (peer->link, FAKE_READ_REQUEST, chrc, NULL, 0);
}

void
fake_chrc_read_done (FakeChrc *chrc, FakeAttError code, GBytes *value)
{
  g_autoptr (GPtrArray) reads = chrc->reads;

  chrc->reads = g_ptr_array_new ();
  if (code == FAKE_ATT_OK)
    {
      g_clear_pointer (&chrc->value, g_bytes_unref);
      chrc->value = g_bytes_ref (value);
      fake_object_changed (chrc->object, "Value", NULL);
    }
  for (guint i = 0; i < reads->len; i++)
    {
      if (code != FAKE_ATT_OK)
        fake_att_error (reads->pdata[i], code);
      else
        g_dbus_method_invocation_return_value (
            reads->pdata[i], g_variant_new ("(@ay)", g_variant_new_from_bytes (
                                                         G_VARIANT_TYPE_BYTESTRING, value, TRUE)));
    }
}

void
fake_chrc_write_done (FakeChrc *chrc, FakeAttError code)
{
  GDBusMethodInvocation *invocation = g_steal_pointer (&chrc->write);

  if (code == FAKE_ATT_OK)
    g_dbus_method_invocation_return_value (invocation, NULL);
  else
    fake_att_error (invocation, code);
}

/* Which ATT operation bluetoothd takes; FALSE: none fits. */
static gboolean
choose_write (FakeChrc *chrc, const char *type, FakeOpKind *kind)
{
  if (type == NULL ? (chrc->flags & MI_LINK_WRITE) != 0 : g_str_equal (type, "request"))
    {
      *kind = FAKE_WRITE_REQUEST;
      return TRUE;
    }
  *kind = FAKE_WRITE_COMMAND;
  return type == NULL ? (chrc->flags & MI_LINK_WRITE_COMMAND) != 0 : g_str_equal (type, "command");
}

static void
write_value (FakeChrc *chrc, GVariant *parameters, GDBusMethodInvocation *invocation)
{
  g_autoptr (GVariant) value = g_variant_get_child_value (parameters, 0);
  g_autoptr (GVariant) options = g_variant_get_child_value (parameters, 1);
  const char *type = NULL;
  gsize len = 0;
  const guint8 *data = g_variant_get_fixed_array (value, &len, 1);
  FakeLink *link;
  FakeOpKind kind;

  if (chrc->write_fd >= 0)
    {
      fake_error (invocation, "NotPermitted", "Write acquired");
      return;
    }
  link = get_ready_link (chrc, invocation);
  if (link == NULL)
    return;
  g_variant_lookup (options, "type", "&s", &type);
  if (chrc->write != NULL)
    fake_error (invocation, "InProgress", "In Progress");
  else if (!choose_write (chrc, type, &kind))
    fake_error (invocation, "NotSupported", "Operation is not supported");
  else if (kind == FAKE_WRITE_REQUEST)
    {
      chrc->write = invocation;
      fake_link_send (link, kind, chrc, len > 0 ? data : (const guint8 *) "", len);
    }
  else if (len > chrc->service->device->peer->att_payload)
    fake_failed (invocation, "Failed to initiate write");
  else
    {
      g_dbus_method_invocation_return_value (invocation, NULL);
      fake_link_send (link, kind, chrc, len > 0 ? data : (const guint8 *) "", len);
    }
}

/* --- the objects --- */

static void
on_method_call (GDBusConnection *connection, const char *sender, const char *path,
                const char *interface, const char *method, GVariant *parameters,
                GDBusMethodInvocation *invocation, gpointer user_data)
{
  FakeChrc *chrc = ((FakeObject *) user_data)->data;

  if (g_str_equal (method, "ReadValue"))
    read_value (chrc, invocation);
  else if (g_str_equal (method, "WriteValue"))
    write_value (chrc, parameters, invocation);
  else if (g_str_equal (method, "AcquireWrite"))
    acquire_write (chrc, invocation);
  else if (g_str_equal (method, "AcquireNotify"))
    acquire_notify (chrc, invocation);
  else if (g_str_equal (method, "StartNotify"))
    start_notify (chrc, sender, invocation);
  else
    stop_notify (chrc, sender, invocation);
}

static GVariant *
get_flags (FakeChrc *chrc)
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
get_chrc_property (gpointer data, const char *property)
{
  FakeChrc *chrc = data;
  gboolean can_notify = (chrc->flags & MI_LINK_NOTIFY) != 0;

  if (g_str_equal (property, "UUID"))
    return g_variant_new_string (chrc->uuid);
  if (g_str_equal (property, "Service"))
    return g_variant_new_object_path (chrc->service->object->path);
  if (g_str_equal (property, "Flags"))
    return get_flags (chrc);
  if (g_str_equal (property, "Value"))
    return chrc->value == NULL
               ? NULL
               : g_variant_new_from_bytes (G_VARIANT_TYPE_BYTESTRING, chrc->value, TRUE);
  if (g_str_equal (property, "Notifying"))
    return can_notify ? g_variant_new_boolean (chrc->notifying) : NULL;
  if (g_str_equal (property, "NotifyAcquired"))
    return can_notify ? g_variant_new_boolean (chrc->notify_fd >= 0) : NULL;
  if (g_str_equal (property, "WriteAcquired"))
    return (chrc->flags & MI_LINK_WRITE_COMMAND) != 0 ? g_variant_new_boolean (chrc->write_fd >= 0)
                                                      : NULL;
  if (g_str_equal (property, "MTU"))
    return g_variant_new_uint16 (chrc->service->device->peer->att_payload + 3);
  return NULL;
}

static GVariant *
get_service_property (gpointer data, const char *property)
{
  FakeService *service = data;

  if (g_str_equal (property, "UUID"))
    return g_variant_new_string (service->uuid);
  if (g_str_equal (property, "Device"))
    return g_variant_new_object_path (service->device->object->path);
  if (g_str_equal (property, "Primary"))
    return g_variant_new_boolean (TRUE);
  if (g_str_equal (property, "Includes"))
    return g_variant_new_objv (NULL, 0);
  return NULL;
}

static void
unref_invocation (gpointer data)
{
  fake_failed (data, "Not connected");
}

static void
chrc_free (gpointer data)
{
  FakeChrc *chrc = data;
  FakeLink *link = get_link (chrc);

  if (link != NULL)
    fake_link_forget (link, chrc);
  release_write (chrc);
  release_notify (chrc);
  g_ptr_array_set_free_func (chrc->reads, unref_invocation);
  g_ptr_array_unref (chrc->reads);
  g_ptr_array_set_free_func (chrc->subscribing, unref_invocation);
  g_ptr_array_unref (chrc->subscribing);
  if (chrc->write != NULL)
    unref_invocation (chrc->write);
  g_ptr_array_unref (chrc->sessions);
  g_clear_pointer (&chrc->value, g_bytes_unref);
  fake_object_free (chrc->object);
  g_free (chrc->uuid);
  g_free (chrc);
}

void
fake_service_free (FakeService *service)
{
  g_ptr_array_unref (service->chrcs);
  fake_object_free (service->object);
  g_free (service->uuid);
  g_free (service);
}

static FakeService *
service_new (FakeDevice *device, const char *uuid, guint16 handle)
{
  static const FakeClass klass = {
    .interface = FAKE_IFACE_SERVICE,
    .get = get_service_property,
    .vtable = { .get_property = fake_object_get_property },
  };
  g_autofree char *path = g_strdup_printf ("%s/service%04x", device->object->path, handle);
  FakeService *service = g_new0 (FakeService, 1);

  service->device = device;
  service->uuid = g_strdup (uuid);
  service->chrcs = g_ptr_array_new_with_free_func (chrc_free);
  service->object = fake_object_new (device->adapter->bluez, &klass, path, service, TRUE);
  g_ptr_array_add (device->services, service);
  return service;
}

static void
chrc_new (FakeService *service, const SimCharacteristic *info, guint16 handle)
{
  static const FakeClass klass = {
    .interface = FAKE_IFACE_CHRC,
    .get = get_chrc_property,
    .vtable = { .method_call = on_method_call, .get_property = fake_object_get_property },
  };
  g_autofree char *path = g_strdup_printf ("%s/char%04x", service->object->path, handle - 1);
  FakeChrc *chrc = g_new0 (FakeChrc, 1);

  chrc->service = service;
  chrc->uuid = g_strdup (info->uuid);
  chrc->handle = handle;
  chrc->flags = info->flags;
  chrc->sessions = g_ptr_array_new_with_free_func (g_free);
  chrc->reads = g_ptr_array_new ();
  chrc->subscribing = g_ptr_array_new ();
  chrc->write_fd = -1;
  chrc->notify_fd = -1;
  chrc->object = fake_object_new (service->device->adapter->bluez, &klass, path, chrc, TRUE);
  g_ptr_array_add (service->chrcs, chrc);
}

void
fake_gatt_outdate (FakeDevice *device)
{
  for (guint i = 0; device->services != NULL && i < device->services->len; i++)
    {
      FakeService *service = device->services->pdata[i];

      for (guint j = 0; j < service->chrcs->len; j++)
        ((FakeChrc *) service->chrcs->pdata[j])->handle += 0x4000;
    }
}

void
fake_gatt_discover (FakeDevice *device)
{
  guint n;
  const SimCharacteristic *info = sim_device_get_gatt (device->peer->sim, &n);
  g_autoptr (GArray) table = fake_link_read_table (device->peer->sim);
  FakeService *service = NULL;

  device->services = g_ptr_array_new_with_free_func ((GDestroyNotify) fake_service_free);
  for (guint i = 0; i < n; i++)
    {
      guint16 handle = g_array_index (table, FakeAttribute, i).handle;

      if (service == NULL || !g_str_equal (service->uuid, info[i].service))
        service = service_new (device, info[i].service, handle - 2);
      chrc_new (service, &info[i], handle);
    }
}

/* --- the device's connections and clients --- */

static void
foreach_chrc (FakeDevice *device, void (*func) (FakeChrc *chrc, gpointer data), gpointer data)
{
  for (guint i = 0; device->services != NULL && i < device->services->len; i++)
    {
      FakeService *service = device->services->pdata[i];

      for (guint j = 0; j < service->chrcs->len; j++)
        func (service->chrcs->pdata[j], data);
    }
}

static void
renew_subscription (FakeChrc *chrc, gpointer data)
{
  FakeLink *link = get_link (chrc);

  if (chrc->sessions->len > 0 && link != NULL)
    fake_link_send (link, FAKE_SUBSCRIBE_REQUEST, chrc, NULL, 0);
}

void
fake_gatt_connected (FakeDevice *device)
{
  foreach_chrc (device, renew_subscription, NULL);
}

static void
chrc_disconnected (FakeChrc *chrc, gpointer data)
{
  release_write (chrc);
  release_notify (chrc);
  set_notifying (chrc, FALSE);
  if (chrc->reads->len > 0) /* they waited for the sockets to be drained */
    fake_chrc_read_done (chrc, FAKE_ATT_UNLIKELY, NULL);
}

void
fake_gatt_disconnected (FakeDevice *device)
{
  foreach_chrc (device, chrc_disconnected, NULL);
}

static void
chrc_client_gone (FakeChrc *chrc, gpointer data)
{
  guint index;

  if (!has_session (chrc, data, &index))
    return;
  g_ptr_array_remove_index (chrc->sessions, index);
  if (chrc->sessions->len == 0)
    set_notifying (chrc, FALSE);
}

void
fake_gatt_client_gone (FakeDevice *device, const char *sender)
{
  foreach_chrc (device, chrc_client_gone, (gpointer) sender);
}
