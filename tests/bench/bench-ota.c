/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * bench-ota BUS ADDRESS MODE WINDOW: one upload over the BlueZ on BUS, figures as "name value"
 * lines. MODE: piped, waiting (reads are waited for), plain (one synchronous WriteValue a block).
 */
#include "config.h"

#include "mi.h"
#include "mitherm-bluez.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define IMAGE_LEN 86340

/* Allocations of this process, counted by standing before the C library's. */
extern void *__libc_malloc (size_t size);
extern void *__libc_calloc (size_t n, size_t size);
extern void *__libc_realloc (void *old, size_t size);
void *malloc (size_t size);
void *calloc (size_t n, size_t size);
void *realloc (void *old, size_t size);
static guint64 allocations;

void *
malloc (size_t size)
{
  allocations++;
  return __libc_malloc (size);
}

void *
calloc (size_t n, size_t size)
{
  allocations++;
  return __libc_calloc (n, size);
}

void *
realloc (void *old, size_t size)
{
  allocations++;
  return __libc_realloc (old, size);
}

typedef struct
{
  GMainLoop *loop;
  GDBusConnection *connection;
  MithermRadio *radio;
  MiLink *link;
  MiRunner *runner;
  gint64 begin_us, end_us;
  double cpu_begin, cpu_end;
  guint64 allocations_begin, allocations_end;
  guint32 begin_done, end_done;
  GError *error;
  gboolean finished;
} Bench;

static double
cpu_seconds (void)
{
  struct rusage usage;

  getrusage (RUSAGE_SELF, &usage);
  return (double) (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec)
         + (double) (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void
mark_begin (Bench *bench, guint32 done)
{
  bench->begin_us = g_get_monotonic_time ();
  bench->cpu_begin = cpu_seconds ();
  bench->allocations_begin = allocations;
  bench->begin_done = done;
}

static void
mark_end (Bench *bench, guint32 done)
{
  bench->end_us = g_get_monotonic_time ();
  bench->cpu_end = cpu_seconds ();
  bench->allocations_end = allocations;
  bench->end_done = done;
}

static void
on_progress (MiRunner *runner, guint32 done, guint32 total, gpointer data)
{
  Bench *bench = data;

  if (bench->begin_us == 0)
    mark_begin (bench, done);
  mark_end (bench, done);
}

static void
on_connected (GObject *source, GAsyncResult *result, gpointer data)
{
  Bench *bench = data;

  bench->link = mitherm_radio_connect_finish (MITHERM_RADIO (source), result, &bench->error);
  bench->finished = TRUE;
}

static void
on_run (GObject *source, GAsyncResult *result, gpointer data)
{
  Bench *bench = data;

  mi_runner_run_finish (MI_RUNNER (source), result, &bench->error);
  bench->finished = TRUE;
}

static void
on_advert (MithermRadio *radio, const MithermAdvert *advert, gpointer data)
{
}

static void
on_changed (MithermRadio *radio, gpointer data)
{
}

static void
wait_finished (Bench *bench)
{
  while (!bench->finished)
    g_main_context_iteration (NULL, TRUE);
  bench->finished = FALSE;
  if (bench->error != NULL)
    {
      fprintf (stderr, "bench-ota: %s\n", bench->error->message);
      exit (1);
    }
}

static guint8 *
build_image (void)
{
  guint8 *image = g_malloc (IMAGE_LEN);

  for (gsize i = 0; i < IMAGE_LEN; i++)
    image[i] = (guint8) (i * 7 + (i >> 8) * 13 + 5);
  memcpy (image, "\x26\x80\0\0\0\0\x5d\x02KNLT", 12);
  image[0x12] = 0x41, image[0x13] = 0x11, image[0x14] = 0x0a, image[0x15] = 0x02;
  mi_put_u32 (image + 0x18, IMAGE_LEN);
  memcpy (image + 0x100, "\0github.com/pvvx\0V5.8\0", 23);
  mi_put_u32 (image + IMAGE_LEN - 4, mi_crc32 (0xffffffff, image, IMAGE_LEN - 4));
  return image;
}

static void
upload (Bench *bench, const guint8 *image, gboolean pipelined, guint window)
{
  MiRunnerCallbacks callbacks = { .progress = on_progress };
  MiOtaOptions options = { .window = window, .pipelined = pipelined };
  g_autoptr (MiProcedure) ota = mi_ota_new (image, IMAGE_LEN, &options);

  bench->runner = mi_runner_new (bench->link, &callbacks, bench);
  mi_runner_run_async (bench->runner, ota, NULL, on_run, bench);
  wait_finished (bench);
}

static char *
find_characteristic (Bench *bench, const char *address)
{
  g_autoptr (GVariant) tree
      = g_dbus_connection_call_sync (bench->connection, "org.bluez", "/",
                                     "org.freedesktop.DBus.ObjectManager", "GetManagedObjects",
                                     NULL, NULL, G_DBUS_CALL_FLAGS_NONE, -1, NULL, NULL);
  g_autoptr (GVariant) objects = g_variant_get_child_value (tree, 0);
  g_autofree char *part = g_strdelimit (g_strdup (address), ":", '_');
  GVariantIter iter;
  const char *path;
  GVariant *interfaces;
  char *found = NULL;

  g_variant_iter_init (&iter, objects);
  while (g_variant_iter_loop (&iter, "{&o@a{sa{sv}}}", &path, &interfaces))
    {
      g_autofree char *text = g_variant_print (interfaces, FALSE);

      if (found == NULL && strstr (path, part) != NULL
          && strstr (text, "00010203-0405-0607-0809-0a0b0c0d2b12") != NULL)
        found = g_strdup (path);
    }
  return found;
}

static void
call (Bench *bench, const char *path, const char *method, GVariant *arguments)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GVariant) answer
      = g_dbus_connection_call_sync (bench->connection, "org.bluez", path,
                                     "org.bluez.GattCharacteristic1", method, arguments, NULL,
                                     G_DBUS_CALL_FLAGS_NONE, -1, NULL, &error);

  if (answer != NULL)
    return;
  fprintf (stderr, "bench-ota: %s: %s\n", method, error->message);
  exit (1);
}

static void
write_value (Bench *bench, const char *path, const guint8 *data, gsize len)
{
  GVariantBuilder options;

  g_variant_builder_init (&options, G_VARIANT_TYPE_VARDICT);
  g_variant_builder_add (&options, "{sv}", "type", g_variant_new_string ("command"));
  call (bench, path, "WriteValue",
        g_variant_new ("(@aya{sv})", g_variant_new_fixed_array (G_VARIANT_TYPE_BYTE, data, len, 1),
                       &options));
}

/* What most scripts do: one call a block, each waited for, and a read after every window. */
static void
plain_loop (Bench *bench, const char *address, const guint8 *image, guint window)
{
  g_autofree char *path = find_characteristic (bench, address);
  guint16 blocks = (IMAGE_LEN + 15) / 16;
  guint8 packet[MI_OTA_PACKET_LEN];

  write_value (bench, path, (const guint8 *) "\x00\xff", 2);
  write_value (bench, path, (const guint8 *) "\x01\xff", 2);
  g_usleep (300000);
  mark_begin (bench, 0);
  for (guint16 i = 0; i < blocks; i++)
    {
      mi_ota_packet (image, IMAGE_LEN, i, packet);
      write_value (bench, path, packet, sizeof packet);
      if (i % window == window - 1)
        call (bench, path, "ReadValue", g_variant_new ("(a{sv})", NULL));
    }
  call (bench, path, "ReadValue", g_variant_new ("(a{sv})", NULL));
  mark_end (bench, IMAGE_LEN);
}

int
main (int argc, char **argv)
{
  Bench bench = { 0 };
  g_autofree guint8 *image = build_image ();
  double blocks, seconds;

  if (argc != 5)
    return 2;
  bench.connection = g_dbus_connection_new_for_address_sync (
      argv[1],
      G_DBUS_CONNECTION_FLAGS_AUTHENTICATION_CLIENT
          | G_DBUS_CONNECTION_FLAGS_MESSAGE_BUS_CONNECTION,
      NULL, NULL, &bench.error);
  g_assert_no_error (bench.error);
  bench.radio = mitherm_bluez_new (bench.connection);
  mitherm_radio_set_callbacks (bench.radio, on_advert, on_changed, NULL);
  mitherm_radio_set_discovery (bench.radio, TRUE);
  mitherm_radio_connect_async (bench.radio, argv[2], NULL, NULL, NULL, NULL, on_connected, &bench);
  wait_finished (&bench);
  if (g_str_equal (argv[3], "plain"))
    plain_loop (&bench, argv[2], image, (guint) atoi (argv[4]));
  else
    upload (&bench, image, g_str_equal (argv[3], "piped"), (guint) atoi (argv[4]));
  blocks = (bench.end_done - bench.begin_done) / 16.0;
  seconds = (double) (bench.end_us - bench.begin_us) / 1e6;
  printf ("blocks_per_second %f\ncpu_us_per_block %f\nallocations_per_block %f\nseconds %f\n",
          blocks / seconds, (bench.cpu_end - bench.cpu_begin) * 1e6 / blocks,
          (double) (bench.allocations_end - bench.allocations_begin) / blocks, seconds);
  return 0;
}
