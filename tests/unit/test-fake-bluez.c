/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "bluez-client.h"
#include "images.h"
#include "mi.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ADAPTER1 "org.bluez.Adapter1"
#define DEVICE1  "org.bluez.Device1"
#define CHRC1    "org.bluez.GattCharacteristic1"

#define STOCK  "[A4:C1:38:00:00:01]\nModel=LYWSD03MMC\nInterval=50\n"
#define CUSTOM "[A4:C1:38:00:00:01]\nModel=LYWSD03MMC\nFirmware=V5.8\nInterval=50\n"
#define RARE   "[A4:C1:38:00:00:01]\nModel=LYWSD03MMC\nInterval=3000\n"

static void
call (World *world, const char *path, const char *interface, const char *method,
      GVariant *parameters)
{
  g_variant_unref (world_call (world, path, interface, method, parameters));
}

/* --- discovery --- */

static void
test_only_while_scanning (void)
{
  g_autoptr (World) world = world_new (STOCK);

  world_spin (world, 300);
  g_assert_false (world_saw (world, "InterfacesAdded", WORLD_DEVICE));
  world_find (world);
  world_forget (world);
  world_spin (world, 300);
  g_assert_cmpuint (world_count_changes (world, WORLD_DEVICE, "RSSI"), ==, 0);
}

static void
test_second_start (void)
{
  g_autoptr (World) world = world_new (STOCK);

  world_call_fails (world, WORLD_ADAPTER, ADAPTER1, "StopDiscovery", NULL, "org.bluez.Error.Failed",
                    "No discovery started");
  call (world, WORLD_ADAPTER, ADAPTER1, "StartDiscovery", NULL);
  world_call_fails (world, WORLD_ADAPTER, ADAPTER1, "StartDiscovery", NULL,
                    "org.bluez.Error.InProgress", "Operation already in progress");
}

static void
test_session_ends_with_client (void)
{
  g_autoptr (World) world = world_new (STOCK);
  GDBusConnection *other = world_connect (world);
  g_autoptr (GVariant) reply = NULL;
  g_autoptr (GVariant) started = NULL;
  g_autoptr (GVariant) stopped = NULL;

  reply = g_dbus_connection_call_sync (other, "org.bluez", WORLD_ADAPTER, ADAPTER1,
                                       "StartDiscovery", NULL, NULL, 0, -1, NULL, NULL);
  g_assert_nonnull (reply);
  started = world_wait_change (world, WORLD_ADAPTER, "Discovering");
  g_assert_true (g_variant_get_boolean (started));
  g_assert_true (g_dbus_connection_close_sync (other, NULL, NULL));
  g_object_unref (other);
  stopped = world_wait_change (world, WORLD_ADAPTER, "Discovering");
  g_assert_false (g_variant_get_boolean (stopped));
}

static void
set_filter (World *world, const char *key, GVariant *value)
{
  GVariantBuilder filter;

  g_variant_builder_init (&filter, G_VARIANT_TYPE_VARDICT);
  g_variant_builder_add (&filter, "{sv}", key, value);
  call (world, WORLD_ADAPTER, ADAPTER1, "SetDiscoveryFilter", g_variant_new ("(a{sv})", &filter));
}

static void
test_uuid_filter (void)
{
  static const char *const uuids[] = { "0000fe95-0000-1000-8000-00805f9b34fb", NULL };
  g_autoptr (World) world = world_new (STOCK);

  set_filter (world, "UUIDs", g_variant_new_strv (uuids, -1));
  call (world, WORLD_ADAPTER, ADAPTER1, "StartDiscovery", NULL);
  world_spin (world, 400);
  g_assert_false (world_saw (world, "InterfacesAdded", WORLD_DEVICE));
}

static void
test_rssi (void)
{
  g_autoptr (World) world = world_new (STOCK);
  g_autoptr (GVariant) during = NULL;
  g_autoptr (GVariant) after = NULL;

  set_filter (world, "Transport", g_variant_new_string ("le"));
  call (world, WORLD_ADAPTER, ADAPTER1, "StartDiscovery", NULL);
  during = world_wait_change (world, WORLD_DEVICE, "RSSI"); /* of every report, also unchanged */
  call (world, WORLD_ADAPTER, ADAPTER1, "StopDiscovery", NULL);
  after = world_get (world, WORLD_DEVICE, DEVICE1, "RSSI");
  g_assert_null (after);
}

/* --- connecting --- */

static void
test_resolve (void)
{
  g_autoptr (World) world = world_new (STOCK);
  g_autoptr (GVariant) connected = NULL;
  g_autoptr (GVariant) resolved = NULL;
  g_autoptr (GVariant) dropped = NULL;
  g_autofree char *version = NULL;

  world_find (world);
  world_call_fails (world, WORLD_DEVICE, DEVICE1, "Pair", NULL,
                    "org.freedesktop.DBus.Error.UnknownMethod", NULL);
  world_join (world);
  connected = world_wait_change (world, WORLD_DEVICE, "Connected");
  g_assert_true (g_variant_get_boolean (connected));
  resolved = world_wait_change (world, WORLD_DEVICE, "ServicesResolved");
  g_assert_true (g_variant_get_boolean (resolved));
  version = world_chrc (world, "00002a26-");
  g_assert_nonnull (version);
  call (world, WORLD_DEVICE, DEVICE1, "Connect", NULL); /* at once when connected */
  call (world, WORLD_DEVICE, DEVICE1, "Disconnect", NULL);
  dropped = world_wait_change (world, WORLD_DEVICE, "Connected");
  g_assert_false (g_variant_get_boolean (dropped));
}

static void
on_called (GObject *source, GAsyncResult *result, gpointer user_data)
{
  GError **error = user_data;
  g_autoptr (GVariant) answer
      = g_dbus_connection_call_finish (G_DBUS_CONNECTION (source), result, error);

  if (answer != NULL)
    g_set_error_literal (error, G_IO_ERROR, G_IO_ERROR_FAILED, "it succeeded");
}

static void
test_cancelled_connect (void)
{
  g_autoptr (World) world = world_new (RARE);
  g_autoptr (GError) error = NULL;

  world_find (world);
  g_dbus_connection_call (world->connection, "org.bluez", WORLD_DEVICE, DEVICE1, "Connect", NULL,
                          NULL, G_DBUS_CALL_FLAGS_NONE, -1, NULL, on_called, &error);
  world_spin (world, 100);
  world_call_fails (world, WORLD_DEVICE, DEVICE1, "Connect", NULL, "org.bluez.Error.Failed",
                    "Operation already in progress");
  call (world, WORLD_DEVICE, DEVICE1, "Disconnect", NULL);
  while (error == NULL)
    world_spin (world, 5);
  g_assert_true (strstr (error->message, "br-connection-canceled") != NULL);
}

static void
test_vanished (void)
{
  g_autoptr (World) world = world_new (STOCK);

  world_find (world);
  call (world, WORLD_ADAPTER, ADAPTER1, "RemoveDevice", g_variant_new ("(o)", WORLD_DEVICE));
  world_call_fails (world, WORLD_DEVICE, DEVICE1, "Connect", NULL,
                    "org.freedesktop.DBus.Error.UnknownObject", NULL);
  world_call_fails (world, WORLD_ADAPTER, ADAPTER1, "RemoveDevice",
                    g_variant_new ("(o)", WORLD_DEVICE), "org.bluez.Error.DoesNotExist", NULL);
}

/* --- characteristics --- */

static void
send_a2 (World *world, const char *control)
{
  const guint8 info[] = { 0xa2, 0x00, 0x00, 0x00 };

  call (world, control, CHRC1, "WriteValue", world_write_args (info, sizeof info, "command"));
}

static void
test_notify_by_signal (void)
{
  g_autoptr (World) world = world_new (STOCK);
  g_autofree char *control = NULL;
  g_autofree char *auth = NULL;
  g_autoptr (GVariant) value = NULL;

  world_find (world);
  world_join (world);
  control = world_chrc (world, "00000010-");
  auth = world_chrc (world, "00000019-");
  call (world, auth, CHRC1, "StartNotify", NULL);
  send_a2 (world, control);
  value = world_wait_change (world, auth, "Value"); /* command frame of the device information */
  g_assert_cmpuint (g_variant_get_size (value), ==, 6);
  call (world, auth, CHRC1, "StopNotify", NULL);
  world_call_fails (world, auth, CHRC1, "StopNotify", NULL, "org.bluez.Error.Failed",
                    "No notify session started");
}

static void
test_two_subscribers (void)
{
  g_autoptr (World) world = world_new (STOCK);
  g_autoptr (GDBusConnection) other = NULL;
  g_autoptr (GVariant) reply = NULL;
  g_autofree char *control = NULL;
  g_autofree char *auth = NULL;

  world_find (world);
  world_join (world);
  other = world_connect (world);
  control = world_chrc (world, "00000010-");
  auth = world_chrc (world, "00000019-");
  call (world, auth, CHRC1, "StartNotify", NULL);
  reply = g_dbus_connection_call_sync (other, "org.bluez", auth, CHRC1, "StartNotify", NULL, NULL,
                                       0, -1, NULL, NULL);
  g_assert_nonnull (reply);
  send_a2 (world, control);
  world_forget (world);
  g_variant_unref (world_wait_change (world, auth, "Value"));
  g_variant_unref (world_wait_change (world, auth, "Value"));
}

static void
test_notify_by_socket (void)
{
  g_autoptr (World) world = world_new (STOCK);
  g_autofree char *control = NULL;
  g_autofree char *auth = NULL;
  guint8 packet[64];
  guint16 mtu;
  int fd;

  world_find (world);
  world_join (world);
  control = world_chrc (world, "00000010-");
  auth = world_chrc (world, "00000019-");
  fd = world_acquire (world, auth, "AcquireNotify", &mtu);
  g_assert_cmpuint (mtu, ==, 23);
  world_call_fails (world, auth, CHRC1, "AcquireNotify", world_no_options (),
                    "org.bluez.Error.NotPermitted", "Notify acquired");
  world_call_fails (world, auth, CHRC1, "StartNotify", NULL, "org.bluez.Error.NotPermitted",
                    "Notify acquired");
  world_forget (world);
  send_a2 (world, control);
  while (recv (fd, packet, sizeof packet, MSG_DONTWAIT) < 0)
    {
      g_assert_cmpint (errno, ==, EAGAIN);
      world_spin (world, 5);
    }
  world_spin (world, 20);
  g_assert_cmpuint (world_count_changes (world, auth, "Value"), ==, 0);
  call (world, WORLD_DEVICE, DEVICE1, "Disconnect", NULL);
  while (recv (fd, packet, sizeof packet, MSG_DONTWAIT) != 0)
    world_spin (world, 5);
  close (fd);
}

static void
test_start_notify_excludes (void)
{
  g_autoptr (World) world = world_new (STOCK);
  g_autofree char *auth = NULL;

  world_find (world);
  world_join (world);
  auth = world_chrc (world, "00000019-");
  call (world, auth, CHRC1, "StartNotify", NULL);
  world_call_fails (world, auth, CHRC1, "AcquireNotify", world_no_options (),
                    "org.bluez.Error.InProgress", NULL);
}

static void
test_write_socket (void)
{
  const guint8 packet[2] = { 0x00, 0xff };
  g_autoptr (World) world = world_new (STOCK);
  g_autofree char *ota = NULL;
  g_autofree char *version = NULL;
  int fd;

  world_find (world);
  world_join (world);
  ota = world_chrc (world, "0a0b0c0d2b12");
  version = world_chrc (world, "00002a26-");
  fd = world_acquire (world, ota, "AcquireWrite", NULL);
  world_call_fails (world, ota, CHRC1, "AcquireWrite", world_no_options (),
                    "org.bluez.Error.NotPermitted", "Write acquired");
  world_call_fails (world, ota, CHRC1, "WriteValue", world_write_args (packet, 2, "command"),
                    "org.bluez.Error.NotPermitted", "Write acquired");
  world_call_fails (world, version, CHRC1, "AcquireWrite", world_no_options (),
                    "org.bluez.Error.NotSupported", NULL);
  world_forget (world);
  close (fd);
  g_variant_unref (world_wait_change (world, ota, "WriteAcquired"));
  call (world, ota, CHRC1, "WriteValue", world_write_args (packet, 2, "command"));
}

static void
test_write_hang_up (void)
{
  const guint8 packet[2] = { 0x00, 0xff };
  g_autoptr (World) world = world_new (STOCK);
  g_autofree char *ota = NULL;
  int fd;

  world_find (world);
  world_join (world);
  ota = world_chrc (world, "0a0b0c0d2b12");
  fd = world_acquire (world, ota, "AcquireWrite", NULL);
  world_order (world, "{\"do\":\"lose-link\",\"device\":\"A4:C1:38:00:00:01\"}");
  while (send (fd, packet, sizeof packet, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0 || errno == EAGAIN)
    world_spin (world, 5);
  g_assert_cmpint (errno, ==, EPIPE);
  close (fd);
  world_call_fails (world, ota, CHRC1, "ReadValue", world_no_options (), "org.bluez.Error.Failed",
                    "Not connected");
}

static void
test_permissions (void)
{
  static const guint8 packet[21];
  g_autoptr (World) world = world_new (STOCK);
  g_autofree char *control = NULL;
  g_autofree char *version = NULL;

  world_find (world);
  world_join (world);
  control = world_chrc (world, "00000010-");
  version = world_chrc (world, "00002a26-");
  world_call_fails (world, control, CHRC1, "ReadValue", world_no_options (),
                    "org.bluez.Error.NotPermitted", "Read not permitted");
  world_call_fails (world, version, CHRC1, "WriteValue", world_write_args (packet, 4, "request"),
                    "org.bluez.Error.NotPermitted", "Write not permitted");
  world_call_fails (world, version, CHRC1, "StartNotify", NULL, "org.bluez.Error.NotSupported",
                    NULL);
  world_call_fails (world, control, CHRC1, "WriteValue", world_write_args (packet, 21, "command"),
                    "org.bluez.Error.Failed", "Failed to initiate write");
  /* Not checked against the flags: it goes out, and the device ignores it. */
  call (world, version, CHRC1, "WriteValue", world_write_args (packet, 4, "command"));
}

/* --- uploads --- */

static void
send_packet (World *world, int fd, const guint8 *data, gsize len)
{
  while (send (fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
    {
      g_assert_cmpint (errno, ==, EAGAIN);
      world_spin (world, 1);
    }
}

static guint16
crc16 (const guint8 *data, gsize len)
{
  guint16 crc = 0xffff;

  for (gsize i = 0; i < len; i++)
    {
      crc ^= data[i];
      for (guint bit = 0; bit < 8; bit++)
        crc = (crc & 1) != 0 ? (crc >> 1) ^ 0xa001 : crc >> 1;
    }
  return crc;
}

static void
send_block (World *world, int fd, guint16 index, const guint8 *data, gsize len)
{
  guint8 packet[20];

  memset (packet, 0xff, sizeof packet);
  packet[0] = (guint8) index;
  packet[1] = (guint8) (index >> 8);
  memcpy (packet + 2, data, MIN (len, 16));
  mi_put_u16 (packet + 18, crc16 (packet, 18));
  send_packet (world, fd, packet, sizeof packet);
}

static guint8
read_byte (World *world, const char *chrc)
{
  g_autoptr (GBytes) value = world_read (world, chrc);

  g_assert_cmpuint (g_bytes_get_size (value), >=, 1);
  return ((const guint8 *) g_bytes_get_data (value, NULL))[0];
}

static void
test_read_is_a_barrier (void)
{
  static const guint8 start[] = { 0x01, 0xff };
  static const guint8 data[16];
  g_autoptr (World) world = world_new (CUSTOM);
  g_autofree char *ota = NULL;
  int fd;

  world_find (world);
  world_join (world);
  ota = world_chrc (world, "0a0b0c0d2b12");
  fd = world_acquire (world, ota, "AcquireWrite", NULL);
  send_packet (world, fd, start, sizeof start);
  world_spin (world, 500); /* it erases */
  for (guint16 i = 0; i < 100; i++)
    send_block (world, fd, i, data, sizeof data);
  g_assert_cmpuint (read_byte (world, ota), ==, 0);
  send_block (world, fd, 500, data, sizeof data); /* a gap: result code 1 */
  g_assert_cmpuint (read_byte (world, ota), ==, 1);
  close (fd);
}

static void
test_packet_over_mtu_vanishes (void)
{
  static const guint8 start[] = { 0x01, 0xff };
  static const guint8 data[21];
  g_autoptr (World) world = world_new (CUSTOM);
  g_autofree char *ota = NULL;
  int fd;

  world_find (world);
  world_join (world);
  ota = world_chrc (world, "0a0b0c0d2b12");
  fd = world_acquire (world, ota, "AcquireWrite", NULL);
  send_packet (world, fd, start, sizeof start);
  world_spin (world, 500);
  send_packet (world, fd, data, sizeof data); /* would be result code 2 */
  g_assert_cmpuint (read_byte (world, ota), ==, 0);
  close (fd);
}

static void
upload (World *world, const char *ota, GByteArray *image)
{
  static const guint8 start[] = { 0x01, 0xff };
  int fd = world_acquire (world, ota, "AcquireWrite", NULL);
  guint16 blocks = (guint16) ((image->len + 15) / 16);
  guint8 end[6] = { 0x02, 0xff };

  send_packet (world, fd, start, sizeof start);
  world_spin (world, 500);
  for (guint16 i = 0; i < blocks; i++)
    send_block (world, fd, i, image->data + i * 16u, image->len - i * 16u);
  g_assert_cmpuint (read_byte (world, ota), ==, 0);
  mi_put_u16 (end + 2, (guint16) (blocks - 1));
  mi_put_u16 (end + 4, (guint16) ((blocks - 1) ^ 0xffff));
  send_packet (world, fd, end, sizeof end);
  while (world_get_boolean (world, WORLD_DEVICE, DEVICE1, "Connected"))
    world_spin (world, 20);
  close (fd);
}

static void
test_cache (void)
{
  g_autoptr (World) world = world_new (CUSTOM);
  g_autoptr (GByteArray) image
      = images_build_text (4100, 0, 0, "mible-login-info", "1.0.0_0131", NULL);
  g_autofree char *ota = NULL;
  g_autofree char *custom = NULL;
  g_autofree char *stale = NULL;
  g_autofree char *missing = NULL;
  g_autofree char *fresh = NULL;

  world_find (world);
  world_join (world);
  ota = world_chrc (world, "0a0b0c0d2b12");
  custom = world_chrc (world, "00001f1f-");
  upload (world, ota, image);
  world_join (world);
  stale = world_chrc (world, "00001f1f-");
  g_assert_cmpstr (stale, ==, custom);
  missing = world_chrc (world, "00000019-");
  g_assert_null (missing);
  /* The handles mean something else now: which error comes depends on what lies there. */
  world_call_fails (world, ota, CHRC1, "WriteValue",
                    world_write_args ((const guint8 *) "\1\377", 2, "request"), NULL, NULL);
  world_call_fails (world, custom, CHRC1, "ReadValue", world_no_options (), NULL, NULL);
  call (world, WORLD_ADAPTER, ADAPTER1, "RemoveDevice", g_variant_new ("(o)", WORLD_DEVICE));
  world_forget (world);
  world_find (world);
  world_join (world);
  fresh = world_chrc (world, "00000019-");
  g_assert_nonnull (fresh);
}

/* --- the air --- */

static void
test_radio (void)
{
  static const guint8 start[] = { 0x01, 0xff };
  static const guint8 data[16];
  g_autoptr (World) world = world_new (CUSTOM "Radio=50,2,0\n");
  g_autofree char *ota = NULL;
  gint64 begin;
  int fd;

  world_find (world);
  world_join (world);
  ota = world_chrc (world, "0a0b0c0d2b12");
  fd = world_acquire (world, ota, "AcquireWrite", NULL);
  send_packet (world, fd, start, sizeof start);
  world_spin (world, 500);
  begin = g_get_monotonic_time ();
  for (guint16 i = 0; i < 11; i++)
    send_block (world, fd, i, data, sizeof data);
  g_assert_cmpuint (read_byte (world, ota), ==, 0);
  /* 12 packets, two in each event, the first of which may come at once. */
  g_assert_cmpint (g_get_monotonic_time () - begin, >=, 5 * 50000 - 2000);
  close (fd);
}

static void
test_lossy_radio (void)
{
  static const guint8 start[] = { 0x01, 0xff };
  static const guint8 data[16];
  g_autoptr (World) world = world_new (CUSTOM "Radio=20,4,300\n");
  g_autofree char *ota = NULL;
  int fd;

  world_find (world);
  world_join (world);
  ota = world_chrc (world, "0a0b0c0d2b12");
  fd = world_acquire (world, ota, "AcquireWrite", NULL);
  send_packet (world, fd, start, sizeof start);
  world_spin (world, 500);
  for (guint16 i = 0; i < 60; i++)
    send_block (world, fd, i, data, sizeof data);
  g_assert_cmpuint (read_byte (world, ota), ==, 0); /* none missing, none twice, all in order */
  close (fd);
}

/* --- bad behaviour to order --- */

static void
test_power_off (void)
{
  g_autoptr (World) world = world_new (STOCK);
  g_autoptr (GVariant) dropped = NULL;

  world_find (world);
  world_join (world);
  world_forget (world);
  world_order (world, "{\"do\":\"bluez\",\"what\":\"power-off\",\"adapter\":\"hci0\"}");
  dropped = world_wait_change (world, WORLD_DEVICE, "Connected");
  g_assert_false (g_variant_get_boolean (dropped));
  world_call_fails (world, WORLD_DEVICE, DEVICE1, "Connect", NULL, "org.bluez.Error.Failed",
                    "Input/output error");
  world_call_fails (world, WORLD_ADAPTER, ADAPTER1, "StartDiscovery", NULL,
                    "org.bluez.Error.NotReady", "Resource Not Ready");
  world_order (world, "{\"do\":\"bluez\",\"what\":\"power-on\"}");
  world_join (world);
}

static void
test_adapter (void)
{
  g_autoptr (World) world = world_new (STOCK);

  world_order (world, "{\"do\":\"bluez\",\"what\":\"remove-adapter\"}");
  world_call_fails (world, WORLD_ADAPTER, ADAPTER1, "StartDiscovery", NULL,
                    "org.freedesktop.DBus.Error.UnknownObject", NULL);
  world_order (world, "{\"do\":\"bluez\",\"what\":\"add-adapter\"}");
  world_find (world);
}

static gboolean
has_owner (World *world)
{
  gboolean owned = FALSE;
  g_autoptr (GVariant) answer = g_dbus_connection_call_sync (
      world->connection, "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus",
      "NameHasOwner", g_variant_new ("(s)", "org.bluez"), NULL, 0, -1, NULL, NULL);

  g_variant_get (answer, "(b)", &owned);
  return owned;
}

static void
test_restart (void)
{
  g_autoptr (World) world = world_new (RARE);
  g_autoptr (GError) error = NULL;

  world_find (world);
  g_dbus_connection_call (world->connection, "org.bluez", WORLD_DEVICE, DEVICE1, "Connect", NULL,
                          NULL, G_DBUS_CALL_FLAGS_NONE, -1, NULL, on_called, &error);
  world_spin (world, 50);
  world_order (world, "{\"do\":\"bluez\",\"what\":\"restart\",\"ms\":300}");
  while (error == NULL)
    world_spin (world, 5);
  g_assert_error (error, G_DBUS_ERROR, G_DBUS_ERROR_NO_REPLY);
  g_assert_false (has_owner (world));
  while (!has_owner (world))
    world_spin (world, 10);
  world_call_fails (world, WORLD_DEVICE, DEVICE1, "Connect", NULL,
                    "org.freedesktop.DBus.Error.UnknownObject", NULL);
  world_forget (world);
  world_find (world);
}

static void
test_ordered_failures (void)
{
  g_autoptr (World) world = world_new (STOCK);
  g_autofree char *auth = NULL;
  g_autofree char *ota = NULL;

  world_find (world);
  world_order (world, "{\"do\":\"bluez\",\"what\":\"fail-connect\",\"count\":1}");
  world_call_fails (world, WORLD_DEVICE, DEVICE1, "Connect", NULL, "org.bluez.Error.Failed",
                    "le-connection-abort-by-local");
  world_order (world, "{\"do\":\"bluez\",\"what\":\"fail-connect\",\"count\":1,"
                      "\"error\":\"org.bluez.Error.NotReady: Resource Not Ready\"}");
  world_call_fails (world, WORLD_DEVICE, DEVICE1, "Connect", NULL, "org.bluez.Error.NotReady",
                    "Resource Not Ready");
  world_order (world, "{\"do\":\"bluez\",\"what\":\"silent-connected\"}");
  world_join (world);
  g_assert_cmpuint (world_count_changes (world, WORLD_DEVICE, "Connected"), ==, 0);
  auth = world_chrc (world, "00000019-");
  ota = world_chrc (world, "0a0b0c0d2b12");
  world_order (world, "{\"do\":\"bluez\",\"what\":\"no-acquire\"}");
  world_call_fails (world, auth, CHRC1, "AcquireNotify", world_no_options (),
                    "org.bluez.Error.NotSupported", NULL);
  world_call_fails (world, ota, CHRC1, "AcquireWrite", world_no_options (),
                    "org.bluez.Error.NotSupported", NULL);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_assert_nonnull (g_getenv ("MITHERM_SIM"));
  g_test_add_func ("/fake-bluez/scan/heard-only-while-a-client-scans", test_only_while_scanning);
  g_test_add_func ("/fake-bluez/scan/second-start-is-in-progress", test_second_start);
  g_test_add_func ("/fake-bluez/scan/session-ends-with-its-client", test_session_ends_with_client);
  g_test_add_func ("/fake-bluez/scan/uuid-filter-finds-no-thermometer", test_uuid_filter);
  g_test_add_func ("/fake-bluez/scan/rssi-goes-when-scanning-stops", test_rssi);
  g_test_add_func ("/fake-bluez/connect/services-resolve-and-drop", test_resolve);
  g_test_add_func ("/fake-bluez/connect/disconnect-cancels-it", test_cancelled_connect);
  g_test_add_func ("/fake-bluez/connect/removed-device-is-unknown", test_vanished);
  g_test_add_func ("/fake-bluez/gatt/notification-as-signal", test_notify_by_signal);
  g_test_add_func ("/fake-bluez/gatt/two-subscribers-double-every-signal", test_two_subscribers);
  g_test_add_func ("/fake-bluez/gatt/notification-by-socket-only", test_notify_by_socket);
  g_test_add_func ("/fake-bluez/gatt/start-notify-excludes-the-socket", test_start_notify_excludes);
  g_test_add_func ("/fake-bluez/gatt/write-socket-excludes-others", test_write_socket);
  g_test_add_func ("/fake-bluez/gatt/write-socket-hangs-up-with-the-link", test_write_hang_up);
  g_test_add_func ("/fake-bluez/gatt/permissions-and-lengths", test_permissions);
  g_test_add_func ("/fake-bluez/upload/read-comes-after-earlier-packets", test_read_is_a_barrier);
  g_test_add_func ("/fake-bluez/upload/packet-over-the-mtu-vanishes",
                   test_packet_over_mtu_vanishes);
  g_test_add_func ("/fake-bluez/upload/old-table-stays-until-removal", test_cache);
  g_test_add_func ("/fake-bluez/radio/packets-wait-for-events", test_radio);
  g_test_add_func ("/fake-bluez/radio/lost-packets-are-sent-again", test_lossy_radio);
  g_test_add_func ("/fake-bluez/ordered/power-off-drops-and-refuses", test_power_off);
  g_test_add_func ("/fake-bluez/ordered/adapter-goes-and-comes", test_adapter);
  g_test_add_func ("/fake-bluez/ordered/restart-leaves-calls-without-reply", test_restart);
  g_test_add_func ("/fake-bluez/ordered/connects-and-sockets-fail", test_ordered_failures);
  return g_test_run ();
}
