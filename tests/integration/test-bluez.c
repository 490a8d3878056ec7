/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "../unit/images.h"
#include "bluez-world.h"
#include "mi-crypto.h"
#include "mitherm-bluez-gatt.h"
#include "mitherm-error.h"

#include <string.h>

#define GROUP_A "[" WORLD_A "]\nModel=LYWSD03MMC\nFirmware=1.0.0_0130\nInterval=200\n"
#define GROUP_B "[" WORLD_B "]\nModel=LYWSD03MMC\nFirmware=1.0.0_0130\nInterval=200\n"
#define TOKEN   "00112233445566778899aabb"
#define BOUND   GROUP_A "Token=" TOKEN "\nBindKey=000102030405060708090a0b0c0d0e0f\n"

/* -- Conditions ---------------------------------------------------------------------------------
 */

static gboolean
is_discovering (World *world, gconstpointer data)
{
  return mitherm_radio_is_discovering (world->radio);
}

static gboolean
is_quiet (World *world, gconstpointer data)
{
  return !mitherm_radio_is_discovering (world->radio);
}

static gboolean
has_adapters (World *world, gconstpointer data)
{
  g_auto (GStrv) names = mitherm_radio_dup_adapters (world->radio);

  return g_strv_length (names) == GPOINTER_TO_UINT (data);
}

static gboolean
is_link_closed (World *world, gconstpointer data)
{
  return ((const WorldLink *) data)->closed > 0;
}

static gboolean
has_steps (World *world, gconstpointer data)
{
  return world->steps->len > 0;
}

/* -- Discovery ----------------------------------------------------------------------------------
 */

static void
test_adverts (void)
{
  g_autoptr (World) world = world_new (GROUP_A GROUP_B, 1);

  world_until_heard (world, WORLD_A);
  world_until_heard (world, WORLD_B);
  /* Each report, also when it is the same as the one before. */
  world_until_heard (world, WORLD_A);
  world_until_heard (world, WORLD_A);
  g_assert_cmpuint (world->last_uuid, ==, 0xfe95);
  g_assert_cmpstr (world->last_name, ==, "LYWSD03MMC");
  g_assert_true (mitherm_radio_is_discovering (world->radio));
  g_assert_true (has_adapters (world, GUINT_TO_POINTER (1)));
}

static void
test_switch_discovery (void)
{
  g_autoptr (World) world = world_new (GROUP_A, 1);

  world_until_heard (world, WORLD_A);
  mitherm_radio_set_discovery (world->radio, FALSE);
  world_until (world, is_quiet, NULL);
  mitherm_radio_set_discovery (world->radio, TRUE);
  world_until (world, is_discovering, NULL);
  world_until_heard (world, WORLD_A);
}

/* Without discovery a connect looks for its device on its own. */
static void
test_connect_looks_itself (void)
{
  g_autoptr (World) world = world_new (GROUP_A, 1);
  g_autoptr (WorldLink) link = NULL;

  mitherm_radio_set_discovery (world->radio, FALSE);
  link = world_connect (world, WORLD_A);
  world_disconnect (world, link);
  world_until (world, is_quiet, NULL);
}

/* -- Connecting ---------------------------------------------------------------------------------
 */

static void
test_connect (void)
{
  g_autoptr (World) world = world_new (GROUP_A, 1);
  g_autoptr (WorldLink) link = NULL;
  g_autofree char *version = NULL;
  g_autoptr (GError) error = NULL;

  world_until_heard (world, WORLD_A);
  link = world_connect (world, WORLD_A);
  g_assert_cmpstr (world->steps->str, ==, "connecting;discovering;");
  /* The radio belongs to the connection now. */
  g_assert_false (mitherm_radio_is_discovering (world->radio));
  g_assert_cmpuint (mi_link_get_att_payload (link->link), >=, 20);
  g_assert_true (mi_link_get_flags (link->link, MI_CHANNEL_AUTH) & MI_LINK_NOTIFY);
  g_assert_true (mi_link_get_flags (link->link, MI_CHANNEL_OTA) & MI_LINK_WRITE_COMMAND);
  g_assert_cmpuint (mi_link_get_flags (link->link, MI_CHANNEL_DFU_DATA), ==, 0);
  version = world_read (world, link->link, MI_CHANNEL_FIRMWARE, &error);
  g_assert_no_error (error);
  g_assert_cmpstr (version, ==, "1.0.0_0130");

  world_disconnect (world, link);
  world_settle (world, WORLD_A);
  world_until (world, is_discovering, NULL);
  world_until_heard (world, WORLD_A);
  g_clear_pointer (&version, g_free);
  version = world_read (world, link->link, MI_CHANNEL_FIRMWARE, &error);
  g_assert_error (error, MI_ERROR, MI_ERROR_LINK_LOST);
}

static void
test_two_devices (void)
{
  g_autoptr (World) world = world_new (GROUP_A GROUP_B, 1);
  g_autoptr (WorldLink) a = NULL;
  g_autoptr (WorldLink) b = NULL;

  world_until_heard (world, WORLD_B);
  a = world_connect_start (world, WORLD_A, NULL);
  b = world_connect_start (world, WORLD_B, "hci0");
  world_until_flag (world, &a->over);
  world_until_flag (world, &b->over);
  g_assert_no_error (a->error);
  g_assert_no_error (b->error);
  /* One after the other. */
  g_assert_cmpstr (world->steps->str, ==, "connecting;discovering;connecting;discovering;");
  world_disconnect (world, a);
  world_disconnect (world, b);
}

static void
test_twice (void)
{
  g_autoptr (World) world = world_new (GROUP_A, 1);
  g_autoptr (WorldLink) a = world_connect (world, WORLD_A);
  g_autoptr (WorldLink) b = world_connect_start (world, WORLD_A, NULL);

  world_until_flag (world, &b->over);
  g_assert_error (b->error, MITHERM_ERROR, MITHERM_ERROR_BUSY);
  /* The next one waits until the connection has dropped. */
  mi_link_disconnect (a->link);
  g_clear_pointer (&b, world_link_free);
  b = world_connect (world, WORLD_A);
  g_assert_cmpuint (a->closed, ==, 1);
  world_disconnect (world, b);
}

static void
test_best_adapter (void)
{
  g_autoptr (World) world = world_new (GROUP_A, 2);
  g_autoptr (WorldLink) best = NULL;
  g_autoptr (WorldLink) other = NULL;

  world_until (world, has_adapters, GUINT_TO_POINTER (2));
  other = world_connect_start (world, WORLD_A, "hci1");
  world_until_flag (world, &other->over);
  g_assert_no_error (other->error);
  world_disconnect (world, other);
  world_settle (world, WORLD_A);
  best = world_connect (world, WORLD_A);
  world_disconnect (world, best);
}

static void
test_transient_errors (void)
{
  g_autoptr (World) world = world_new (GROUP_A, 1);
  g_autoptr (WorldLink) link = NULL;

  world_until_heard (world, WORLD_A);
  world_do (world, "{\"do\":\"bluez\",\"what\":\"fail-connect\",\"count\":3,"
                   "\"error\":\"le-connection-abort-by-local\"}");
  link = world_connect (world, WORLD_A);
  g_assert_cmpstr (world->steps->str, ==,
                   "connecting;connecting;connecting;connecting;discovering;");
  world_disconnect (world, link);
}

static void
test_lasting_errors (void)
{
  g_autoptr (World) world = world_new (GROUP_A, 1);
  g_autoptr (WorldLink) link = NULL;
  g_autoptr (WorldLink) again = NULL;

  world_until_heard (world, WORLD_A);
  world_do (world, "{\"do\":\"bluez\",\"what\":\"fail-connect\",\"count\":5,"
                   "\"error\":\"le-connection-abort-by-local\"}");
  link = world_connect_start (world, WORLD_A, NULL);
  world_until_flag (world, &link->over);
  g_assert_error (link->error, MITHERM_ERROR, MITHERM_ERROR_LINK_LOST);
  again = world_connect (world, WORLD_A);
  world_disconnect (world, again);
}

static void
test_busy (void)
{
  g_autoptr (World) world = world_new (GROUP_A, 1);
  g_autoptr (WorldLink) link = NULL;

  world_until_heard (world, WORLD_A);
  world_do (world, "{\"do\":\"bluez\",\"what\":\"fail-connect\",\"count\":1,"
                   "\"error\":\"InProgress: Operation already in progress\"}");
  link = world_connect (world, WORLD_A);
  g_assert_cmpint (link->took_us, >=, 900000);
  world_disconnect (world, link);
}

static void
test_fatal_error (void)
{
  g_autoptr (World) world = world_new (GROUP_A, 1);
  g_autoptr (WorldLink) link = NULL;

  world_until_heard (world, WORLD_A);
  world_do (world, "{\"do\":\"bluez\",\"what\":\"fail-connect\",\"count\":1,"
                   "\"error\":\"NotSupported: Operation is not supported\"}");
  link = world_connect_start (world, WORLD_A, NULL);
  world_until_flag (world, &link->over);
  g_assert_error (link->error, MITHERM_ERROR, MITHERM_ERROR_UNSUPPORTED);
}

static void
test_silent_connected (void)
{
  g_autoptr (World) world = world_new (GROUP_A, 1);
  g_autoptr (WorldLink) link = NULL;

  world_do (world, "{\"do\":\"bluez\",\"what\":\"silent-connected\"}");
  link = world_connect (world, WORLD_A);
  world_disconnect (world, link);
  world_settle (world, WORLD_A);
}

static void
test_cancel (void)
{
  g_autoptr (World) world = world_new (GROUP_A, 1);
  g_autoptr (WorldLink) link = NULL;
  g_autoptr (WorldLink) again = NULL;

  world_until_heard (world, WORLD_A);
  link = world_connect_start (world, WORLD_A, NULL);
  world_until (world, has_steps, NULL);
  g_cancellable_cancel (link->cancellable);
  world_until_flag (world, &link->over);
  g_assert_error (link->error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  g_assert_cmpint (link->took_us, <, 1000000);
  again = world_connect (world, WORLD_A);
  world_disconnect (world, again);
}

static void
test_cancelled_in_queue (void)
{
  g_autoptr (World) world = world_new (GROUP_A GROUP_B, 1);
  g_autoptr (WorldLink) a = world_connect_start (world, WORLD_A, NULL);
  g_autoptr (WorldLink) b = world_connect_start (world, WORLD_B, NULL);

  g_cancellable_cancel (b->cancellable);
  world_until_flag (world, &b->over);
  g_assert_error (b->error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  world_until_flag (world, &a->over);
  g_assert_no_error (a->error);
  world_disconnect (world, a);
}

/* Both take their whole limit, so they do it at the same time. */
static void
test_absent (void)
{
  g_autoptr (World) world = world_new (GROUP_A, 1);
  g_autoptr (WorldLink) device = world_connect_start (world, "A4:C1:38:99:99:99", NULL);
  g_autoptr (WorldLink) adapter = world_connect_start (world, WORLD_A, "hci7");

  world_until_flag (world, &adapter->over);
  g_assert_error (adapter->error, MITHERM_ERROR, MITHERM_ERROR_NOT_FOUND);
  world_until_flag (world, &device->over);
  g_assert_error (device->error, MITHERM_ERROR, MITHERM_ERROR_NOT_FOUND);
}

/* -- Procedures -----------------------------------------------------------------------------------
 */

static void
on_persist (MiRunner *runner, const MiKeys *keys, MiKeyState state, gpointer user_data)
{
  mi_runner_persisted (runner, TRUE);
}

static void
on_trace (MiRunner *runner, const char *line, gpointer user_data)
{
  g_test_message ("%.80s", line);
}

static MiRunner *
make_runner (WorldLink *link)
{
  static const MiRunnerCallbacks callbacks = { .persist = on_persist, .trace = on_trace };

  return mi_runner_new (link->link, &callbacks, NULL);
}

static void
run_login (World *world, MiRunner *runner)
{
  g_autoptr (GError) error = NULL;
  guint8 token[MI_TOKEN_LEN];

  g_assert_true (mi_hex_decode (TOKEN, token, sizeof token));
  world_run (world, runner,
             mi_login_new (mi_runner_get_sizes (runner), token, mi_crypto_random, NULL, FALSE),
             &error);
  g_assert_no_error (error);
}

static void
test_register (void)
{
  g_autoptr (World) world = world_new (GROUP_A, 1);
  g_autoptr (WorldLink) link = world_connect (world, WORLD_A);
  g_autoptr (MiRunner) runner = make_runner (link);
  MiRegisterOptions options = { .sizes = mi_runner_get_sizes (runner), .random = mi_crypto_random };
  g_autoptr (GError) error = NULL;
  g_autofree char *token = NULL;

  world_run (world, runner, mi_register_new (&options), &error);
  g_assert_no_error (error);
  token = world_state (world, WORLD_A, "token");
  g_assert_cmpuint (strlen (token), ==, 2 * MI_TOKEN_LEN);
  mi_link_set_callbacks (link->link, NULL, NULL, NULL);
  mi_link_disconnect (link->link);
  world_settle (world, WORLD_A);
}

/* The subscription of the first connection would outlive it. */
static void
test_login_again (void)
{
  g_autoptr (World) world = world_new (BOUND, 1);

  for (int i = 0; i < 3; i++)
    {
      g_autoptr (WorldLink) link = world_connect (world, WORLD_A);
      g_autoptr (MiRunner) runner = make_runner (link);

      run_login (world, runner);
      if (i == 0)
        world_do (world, "{\"do\":\"lose-link\"}");
      else
        mi_link_disconnect (link->link);
      world_settle (world, WORLD_A);
    }
}

/* Every notification is signalled twice then. */
static void
test_second_client (void)
{
  g_autoptr (World) world = world_new (BOUND, 1);
  g_autoptr (WorldLink) link = world_connect (world, WORLD_A);
  g_autoptr (MiRunner) runner = make_runner (link);
  g_autoptr (GDBusConnection) other = NULL;
  g_autoptr (GVariant) objects = NULL;
  g_autoptr (GPtrArray) found = NULL;
  g_autoptr (GVariant) reply = NULL;
  g_autoptr (GError) error = NULL;

  other = g_dbus_connection_new_for_address_sync (
      g_test_dbus_get_bus_address (world->dbus),
      G_DBUS_CONNECTION_FLAGS_AUTHENTICATION_CLIENT
          | G_DBUS_CONNECTION_FLAGS_MESSAGE_BUS_CONNECTION,
      NULL, NULL, &error);
  g_assert_no_error (error);
  reply = g_dbus_connection_call_sync (other, "org.bluez", "/",
                                       "org.freedesktop.DBus.ObjectManager", "GetManagedObjects",
                                       NULL, NULL, G_DBUS_CALL_FLAGS_NONE, -1, NULL, &error);
  g_assert_no_error (error);
  objects = g_variant_get_child_value (reply, 0);
  found = mitherm_gatt_parse (objects, "/org/bluez/hci0/dev_A4_C1_38_00_00_01");
  for (guint i = 0; i < found->len; i++)
    {
      MithermCharacteristic *characteristic = found->pdata[i];

      if (characteristic->channel != MI_CHANNEL_CONTROL
          && characteristic->channel != MI_CHANNEL_AUTH)
        continue;
      g_variant_unref (reply);
      reply = g_dbus_connection_call_sync (other, "org.bluez", characteristic->path,
                                           "org.bluez.GattCharacteristic1", "StartNotify", NULL,
                                           NULL, G_DBUS_CALL_FLAGS_NONE, -1, NULL, &error);
      g_assert_no_error (error);
    }
  run_login (world, runner);
  mi_link_disconnect (link->link);
  world_settle (world, WORLD_A);
  g_assert_true (g_dbus_connection_close_sync (other, NULL, NULL));
}

static GByteArray *
make_image (void)
{
  return images_build_text (4100, 0, 0, "mible-login-info", "1.0.0_0131", NULL);
}

/* After an image change: what a job does, and the new version answers. */
static void
check_updated (World *world)
{
  g_autoptr (WorldLink) link = NULL;
  g_autofree char *version = NULL;
  g_autoptr (GError) error = NULL;

  world_settle (world, WORLD_A);
  world_forget (world, WORLD_A);
  link = world_connect (world, WORLD_A);
  version = world_read (world, link->link, MI_CHANNEL_FIRMWARE, &error);
  g_assert_no_error (error);
  g_assert_cmpstr (version, ==, "1.0.0_0131");
  world_disconnect (world, link);
}

static void
upload (World *world)
{
  g_autoptr (WorldLink) link = world_connect (world, WORLD_A);
  g_autoptr (MiRunner) runner = make_runner (link);
  g_autoptr (GByteArray) image = make_image ();
  MiOtaOptions options = { .pipelined = TRUE };
  g_autoptr (GError) error = NULL;

  run_login (world, runner);
  world_run (world, runner, mi_ota_new (image->data, image->len, &options), &error);
  g_assert_no_error (error);
  check_updated (world);
}

static void
test_upload (void)
{
  g_autoptr (World) world = world_new (BOUND, 1);

  upload (world);
}

static void
test_upload_by_calls (void)
{
  g_autoptr (World) world = world_new (BOUND, 1);

  world_do (world, "{\"do\":\"bluez\",\"what\":\"no-acquire\"}");
  upload (world);
}

/*
 * A whole image at once, most of it while the descriptor is not there yet: the device takes it
 * only if no block is missing or out of order, and the read comes after all of them.
 */
static void
test_bulk_order (void)
{
  g_autoptr (World) world = world_new (BOUND, 1);
  g_autoptr (WorldLink) link = world_connect (world, WORLD_A);
  g_autoptr (MiRunner) runner = make_runner (link);
  g_autoptr (GByteArray) image = make_image ();
  g_autoptr (GError) error = NULL;
  guint16 last = (guint16) ((image->len + MI_OTA_BLOCK_LEN - 1) / MI_OTA_BLOCK_LEN - 1);
  guint8 packet[MI_OTA_PACKET_LEN] = { 0x01, 0xff };

  run_login (world, runner);
  g_assert_true (mi_link_write (link->link, MI_CHANNEL_OTA, packet, 2, &error));
  for (guint16 i = 0; i <= last; i++)
    {
      mi_ota_packet (image->data, image->len, i, packet);
      mi_link_write (link->link, MI_CHANNEL_OTA, packet, sizeof packet, &error);
      g_assert_no_error (error);
    }
  g_free (world_read (world, link->link, MI_CHANNEL_OTA, &error));
  g_assert_no_error (error);
  mi_put_u16 (packet, 0xff02);
  mi_put_u16 (packet + 2, last);
  mi_put_u16 (packet + 4, last ^ 0xffff);
  g_assert_true (mi_link_write (link->link, MI_CHANNEL_OTA, packet, 6, &error));
  check_updated (world);
}

static void
test_write_checks (void)
{
  g_autoptr (World) world = world_new (GROUP_A, 1);
  g_autoptr (WorldLink) link = world_connect (world, WORLD_A);
  g_autoptr (GError) error = NULL;
  guint8 data[600] = { 0 };

  g_assert_false (mi_link_write (link->link, MI_CHANNEL_OTA, data, sizeof data, &error));
  g_assert_error (error, MI_ERROR, MI_ERROR_IO);
  g_clear_error (&error);
  g_assert_false (mi_link_write (link->link, MI_CHANNEL_FIRMWARE, data, 1, &error));
  g_assert_error (error, MI_ERROR, MI_ERROR_IO);
  g_clear_error (&error);
  g_assert_null (world_read (world, link->link, MI_CHANNEL_AUTH, &error));
  g_assert_error (error, MI_ERROR, MI_ERROR_IO);
  world_disconnect (world, link);
}

static void
on_written (GObject *source, GAsyncResult *result, gpointer user_data)
{
  g_autoptr (GError) error = NULL;

  g_assert_true (mi_link_write_request_finish (MI_LINK (source), result, &error));
  g_assert_no_error (error);
  *(gboolean *) user_data = TRUE;
}

/* A characteristic without write-without-response: BlueZ refuses a second request meanwhile. */
static void
test_requests_wait (void)
{
  g_autoptr (World) world = world_new (GROUP_A, 1);
  g_autoptr (WorldLink) link = world_connect (world, WORLD_A);
  g_autoptr (GError) error = NULL;
  g_autofree char *version = NULL;
  const guint8 interval[] = { 0x1e, 0x00, 0x00 };
  gboolean written = FALSE;

  g_assert_cmpuint (mi_link_get_flags (link->link, MI_CHANNEL_INTERVAL), ==, MI_LINK_WRITE);
  for (int i = 0; i < 20; i++)
    {
      g_assert_true (
          mi_link_write (link->link, MI_CHANNEL_INTERVAL, interval, sizeof interval, &error));
      g_assert_no_error (error);
    }
  mi_link_write_request_async (link->link, MI_CHANNEL_INTERVAL, interval, sizeof interval, NULL,
                               on_written, &written);
  /* Behind all of them, and only if none of them failed. */
  version = world_read (world, link->link, MI_CHANNEL_FIRMWARE, &error);
  g_assert_no_error (error);
  g_assert_true (written);
  g_assert_true (
      mi_link_write (link->link, MI_CHANNEL_INTERVAL, interval, sizeof interval, &error));
  world_disconnect (world, link);
}

static void
test_allowed_adapters (void)
{
  const char *names[] = { "hci1", NULL };
  g_autoptr (World) world = world_new (GROUP_A, 2);
  g_autoptr (WorldLink) link = NULL;
  g_auto (GStrv) adapters = NULL;

  mitherm_bluez_set_adapters (MITHERM_BLUEZ (world->radio), names);
  link = world_connect (world, WORLD_A);
  adapters = mitherm_radio_dup_adapters (world->radio);
  g_assert_cmpuint (g_strv_length (adapters), ==, 1);
  g_assert_cmpstr (adapters[0], ==, "hci1");
  world_disconnect (world, link);
}

/* -- Losing things
 * ---------------------------------------------------------------------------------- */

static void
test_lost_link (void)
{
  g_autoptr (World) world = world_new (GROUP_A, 1);
  g_autoptr (WorldLink) link = world_connect (world, WORLD_A);
  g_autoptr (WorldLink) again = NULL;
  g_autoptr (GError) error = NULL;
  guint8 data[] = { 0x00, 0xff };

  /* With a descriptor, too: its end is the first that is seen. */
  g_assert_true (mi_link_write (link->link, MI_CHANNEL_OTA, data, sizeof data, &error));
  g_free (world_read (world, link->link, MI_CHANNEL_OTA, &error));
  g_assert_no_error (error);
  world_do (world, "{\"do\":\"lose-link\"}");
  world_until (world, is_link_closed, link);
  g_assert_false (mi_link_write (link->link, MI_CHANNEL_OTA, data, sizeof data, &error));
  g_assert_error (error, MI_ERROR, MI_ERROR_LINK_LOST);
  world_settle (world, WORLD_A);
  again = world_connect (world, WORLD_A);
  g_assert_cmpuint (link->closed, ==, 1);
  world_disconnect (world, again);
}

static void
test_restart (void)
{
  g_autoptr (World) world = world_new (GROUP_A, 1);
  g_autoptr (WorldLink) link = world_connect (world, WORLD_A);
  g_autoptr (WorldLink) again = NULL;

  world_do (world, "{\"do\":\"bluez\",\"what\":\"restart\",\"ms\":200}");
  world_until (world, is_link_closed, link);
  world_until (world, has_adapters, GUINT_TO_POINTER (0));
  /* Waits for bluetoothd. */
  again = world_connect (world, WORLD_A);
  world_disconnect (world, again);
  world_until_heard (world, WORLD_A);
  g_assert_cmpuint (link->closed, ==, 1);
}

static void
test_restart_while_connecting (void)
{
  g_autoptr (World) world = world_new (GROUP_A, 1);
  g_autoptr (WorldLink) link = NULL;

  world_until_heard (world, WORLD_A);
  link = world_connect_start (world, WORLD_A, NULL);
  world_until (world, has_steps, NULL);
  world_do (world, "{\"do\":\"bluez\",\"what\":\"restart\",\"ms\":200}");
  world_until_flag (world, &link->over);
  g_assert_no_error (link->error);
  /* It may have come up before the restart. */
  if (link->closed == 0)
    mi_link_disconnect (link->link);
  world_until (world, is_link_closed, link);
}

static void
test_adapter_removed (void)
{
  g_autoptr (World) world = world_new (GROUP_A, 1);
  g_autoptr (WorldLink) link = world_connect (world, WORLD_A);
  g_autoptr (WorldLink) again = NULL;
  guint changes = 0;

  changes = world->changes;
  world_do (world, "{\"do\":\"bluez\",\"what\":\"remove-adapter\",\"adapter\":\"hci0\"}");
  world_until (world, is_link_closed, link);
  world_until (world, has_adapters, GUINT_TO_POINTER (0));
  g_assert_cmpuint (world->changes, >, changes);
  g_assert_false (mitherm_radio_is_discovering (world->radio));
  again = world_connect_start (world, WORLD_A, NULL);
  world_do (world, "{\"do\":\"bluez\",\"what\":\"add-adapter\",\"adapter\":\"hci0\"}");
  world_until_flag (world, &again->over);
  g_assert_no_error (again->error);
  world_disconnect (world, again);
  world_until_heard (world, WORLD_A);
}

static void
test_power (void)
{
  g_autoptr (World) world = world_new (GROUP_A, 1);
  g_autoptr (WorldLink) link = world_connect (world, WORLD_A);
  g_autoptr (WorldLink) again = NULL;

  world_do (world, "{\"do\":\"bluez\",\"what\":\"power-off\",\"adapter\":\"hci0\"}");
  world_until (world, is_link_closed, link);
  world_until (world, has_adapters, GUINT_TO_POINTER (0));
  world_do (world, "{\"do\":\"bluez\",\"what\":\"power-on\",\"adapter\":\"hci0\"}");
  world_until (world, has_adapters, GUINT_TO_POINTER (1));
  world_until_heard (world, WORLD_A);
  again = world_connect (world, WORLD_A);
  world_disconnect (world, again);
}

/* -- Forgetting -----------------------------------------------------------------------------------
 */

static void
set_trusted (World *world)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GVariant) reply = g_dbus_connection_call_sync (
      world->bus, "org.bluez", "/org/bluez/hci0/dev_A4_C1_38_00_00_01",
      "org.freedesktop.DBus.Properties", "Set",
      g_variant_new ("(ssv)", "org.bluez.Device1", "Trusted", g_variant_new_boolean (TRUE)), NULL,
      G_DBUS_CALL_FLAGS_NONE, -1, NULL, &error);

  g_assert_no_error (error);
  g_assert_nonnull (reply);
}

static gboolean
has_object (World *world)
{
  g_autoptr (GVariant) reply
      = g_dbus_connection_call_sync (world->bus, "org.bluez",
                                     "/org/bluez/hci0/dev_A4_C1_38_00_00_01",
                                     "org.freedesktop.DBus.Properties", "Get",
                                     g_variant_new ("(ss)", "org.bluez.Device1", "Address"), NULL,
                                     G_DBUS_CALL_FLAGS_NONE, -1, NULL, NULL);

  return reply != NULL;
}

static void
test_forget (void)
{
  g_autoptr (World) world = world_new (GROUP_A, 1);

  world_until_heard (world, WORLD_A);
  mitherm_radio_set_discovery (world->radio, FALSE);
  world_until (world, is_quiet, NULL);
  g_assert_true (has_object (world));
  world_forget (world, WORLD_A);
  g_assert_false (has_object (world));
}

static void
test_forget_trusted (void)
{
  g_autoptr (World) world = world_new (GROUP_A, 1);

  world_until_heard (world, WORLD_A);
  set_trusted (world);
  world_until_heard (world, WORLD_A);
  mitherm_radio_set_discovery (world->radio, FALSE);
  world_until (world, is_quiet, NULL);
  world_forget (world, WORLD_A);
  g_assert_true (has_object (world));
}

/* Its object has gone, its cache has not: then it goes before the next connection. */
static void
test_forget_later (void)
{
  g_autoptr (World) world = world_new (GROUP_A, 1);
  g_autoptr (WorldLink) link = NULL;

  world_forget (world, WORLD_A);
  world_until_heard (world, WORLD_A);
  link = world_connect (world, WORLD_A);
  world_disconnect (world, link);
}

/* -- Without a bus --------------------------------------------------------------------------------
 */

static void
test_channels (void)
{
  static const struct
  {
    const char *service, *uuid;
    guint16 channel;
  } cases[] = {
    { "0000fe95-0000-1000-8000-00805f9b34fb", "00000010-0000-1000-8000-00805f9b34fb", 0x0010 },
    { "0000FE95-0000-1000-8000-00805F9B34FB", "00000019-0000-1000-8000-00805F9B34FB", 0x0019 },
    { "0000180a-0000-1000-8000-00805f9b34fb", "00002a26-0000-1000-8000-00805f9b34fb", 0x2a26 },
    { "00010203-0405-0607-0809-0a0b0c0d1912", "00010203-0405-0607-0809-0a0b0c0d2b12", 0x2b12 },
    { "ebe0ccb0-7a0a-4b0c-8a1a-6ff2997da3a6", "ebe0ccd8-7a0a-4b0c-8a1a-6ff2997da3a6", 0xccd8 },
    { "00001f10-0000-1000-8000-00805f9b34fb", "00001f1f-0000-1000-8000-00805f9b34fb", 0x1f1f },
    /* Qingping's own protocol uses the numbers of the DFU. */
    { "22210000-554a-4546-5542-46534450464d", "00000017-0000-1000-8000-00805f9b34fb", 0 },
    { "22210000-554a-4546-5542-46534450464d", "00000001-0000-1000-8000-00805f9b34fb", 0 },
    { "00010203-0405-0607-0809-0a0b0c0d1912", "00010203-0405-0607-0809-0a0b0c0d2b20", 0 },
    { "0000fe95-0000-1000-8000-00805f9b34fb", "00000010-0000-1000-8000-00805f9b34f", 0 },
    { "0000fe95-0000-1000-8000-00805f9b34fb", "0000zz10-0000-1000-8000-00805f9b34fb", 0 },
    { "0000fe95-0000-1000-8000-00805f9b34fb", "", 0 },
  };

  for (gsize i = 0; i < G_N_ELEMENTS (cases); i++)
    g_assert_cmphex (mitherm_gatt_channel (cases[i].service, cases[i].uuid), ==, cases[i].channel);
}

static void
test_error_names (void)
{
  g_autoptr (GError) lost = g_error_new (MI_ERROR, MI_ERROR_LINK_LOST, "gone");
  g_autoptr (GError) remote = g_dbus_error_new_for_dbus_error ("org.bluez.Error.NotReady", "off");
  g_autoptr (GError) a = mitherm_error_translate (lost);
  g_autoptr (GError) b = mitherm_error_translate (remote);
  g_autoptr (GError) back = NULL;
  g_autofree char *name = g_dbus_error_encode_gerror (a);

  g_assert_error (a, MITHERM_ERROR, MITHERM_ERROR_LINK_LOST);
  g_assert_cmpstr (a->message, ==, "gone");
  g_assert_error (b, MITHERM_ERROR, MITHERM_ERROR_NOT_FOUND);
  g_assert_cmpstr (b->message, ==, "off");
  g_assert_cmpstr (name, ==, "org.mitherm.Error.LinkLost");
  g_assert_cmpstr (mitherm_error_name (MITHERM_ERROR_LINK_LOST), ==, name);
  back = g_dbus_error_new_for_dbus_error ("org.mitherm.Error.NotSigned", "x");
  g_assert_error (back, MITHERM_ERROR, MITHERM_ERROR_NOT_SIGNED);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/bluez/channels-are-told-apart-by-service", test_channels);
  g_test_add_func ("/bluez/errors-have-names-on-the-bus", test_error_names);
  g_test_add_func ("/bluez/every-advertisement-is-heard", test_adverts);
  g_test_add_func ("/bluez/discovery-can-be-switched", test_switch_discovery);
  g_test_add_func ("/bluez/connect-looks-for-its-device", test_connect_looks_itself);
  g_test_add_func ("/bluez/connect-reads-and-disconnects", test_connect);
  g_test_add_func ("/bluez/two-devices-connect-one-after-the-other", test_two_devices);
  g_test_add_func ("/bluez/second-link-to-a-device-is-busy", test_twice);
  g_test_add_func ("/bluez/adapter-can-be-chosen", test_best_adapter);
  g_test_add_func ("/bluez/transient-errors-are-retried", test_transient_errors);
  g_test_add_func ("/bluez/lasting-errors-end-the-connect", test_lasting_errors);
  g_test_add_func ("/bluez/busy-is-waited-out", test_busy);
  g_test_add_func ("/bluez/fatal-error-is-not-retried", test_fatal_error);
  g_test_add_func ("/bluez/connected-need-not-be-signalled", test_silent_connected);
  g_test_add_func ("/bluez/connect-can-be-cancelled", test_cancel);
  g_test_add_func ("/bluez/connect-can-be-cancelled-in-the-queue", test_cancelled_in_queue);
  g_test_add_func ("/bluez/absent-device-and-adapter-are-not-found", test_absent);
  g_test_add_func ("/bluez/register", test_register);
  g_test_add_func ("/bluez/login-again-after-reconnecting", test_login_again);
  g_test_add_func ("/bluez/login-beside-a-second-client", test_second_client);
  g_test_add_func ("/bluez/upload-by-descriptor", test_upload);
  g_test_add_func ("/bluez/upload-by-calls", test_upload_by_calls);
  g_test_add_func ("/bluez/bulk-data-keeps-its-order", test_bulk_order);
  g_test_add_func ("/bluez/writes-are-checked", test_write_checks);
  g_test_add_func ("/bluez/requests-wait-for-each-other", test_requests_wait);
  g_test_add_func ("/bluez/only-allowed-adapters-are-used", test_allowed_adapters);
  g_test_add_func ("/bluez/lost-link-is-closed-once", test_lost_link);
  g_test_add_func ("/bluez/restart-of-bluetoothd-is-survived", test_restart);
  g_test_add_func ("/bluez/restart-while-connecting-is-survived", test_restart_while_connecting);
  g_test_add_func ("/bluez/adapter-removal-is-survived", test_adapter_removed);
  g_test_add_func ("/bluez/power-off-is-survived", test_power);
  g_test_add_func ("/bluez/forget-removes-the-object", test_forget);
  g_test_add_func ("/bluez/forget-spares-trusted-devices", test_forget_trusted);
  g_test_add_func ("/bluez/forget-an-absent-device-later", test_forget_later);
  return g_test_run ();
}
