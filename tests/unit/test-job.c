/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "mitherm-job.h"

#include <errno.h>
#include <string.h>

#include <glib/gstdio.h>

#include "images.h"
#include "mitherm-error.h"
#include "sim-radio.h"

/*
 * Jobs against the simulator's thermometers in memory: no bus, no Bluetooth, and time that runs
 * faster (sim-radio.h).
 */

#define ONE "A4:C1:38:00:00:01"
#define TWO "A4:C1:38:00:00:02"
/* Longest wait for one job on a slow machine with sanitizers. */
#define LIMIT_S 90

#define BOUND                                                                                      \
  "Token=0102030405060708090a0b0c\nBindKey=101112131415161718191a1b1c1d1e1f\n"                     \
  "Did=blt.3.129vabcdefg00\n"
#define STOCK(address) "[" address "]\nModel=LYWSD03MMC\nHardware=B1.4\nFirmware=1.0.0_0130\n"

static const guint8 bound_token[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 };

typedef struct
{
  char *dir;
  SimRadioMock *radio;
  MithermStore *store;
  MiModels *models;
  MithermManager *manager;
  MithermManagerConfig config;
} Fixture;

static void
set_up (Fixture *f, gconstpointer devices)
{
  g_autoptr (GError) error = NULL;

  f->dir = g_dir_make_tmp ("mitherm-job-XXXXXX", NULL);
  f->store = mitherm_store_new (f->dir, &error);
  g_assert_no_error (error);
  f->models = mi_models_load (MITHERM_SOURCE_DATA_DIR, NULL, NULL);
  f->radio = sim_radio_new (devices);
  f->config.radio = MITHERM_RADIO (f->radio);
  f->config.store = f->store;
  f->config.models = f->models;
  f->config.discovery = TRUE;
  f->manager = mitherm_manager_new (&f->config);
  sim_radio_advertise (f->radio, NULL, NULL);
}

static void
restart_manager (Fixture *f)
{
  mitherm_manager_stop (f->manager);
  g_clear_object (&f->manager);
  f->manager = mitherm_manager_new (&f->config);
}

static void
spin_ms (guint ms)
{
  gint64 until = g_get_monotonic_time () + ms * 1000;

  while (g_get_monotonic_time () < until)
    {
      g_main_context_iteration (NULL, FALSE);
      g_usleep (200);
    }
}

static void
remove_tree (const char *path)
{
  g_autoptr (GDir) dir = g_dir_open (path, 0, NULL);
  const char *name;

  while (dir != NULL && (name = g_dir_read_name (dir)) != NULL)
    {
      g_autofree char *child = g_build_filename (path, name, NULL);

      if (g_file_test (child, G_FILE_TEST_IS_DIR))
        remove_tree (child);
      else
        g_unlink (child);
    }
  g_rmdir (path);
}

/* Links drop, jobs are let go: until only we hold @object. */
static void
wait_alone (Fixture *f, gpointer object)
{
  gint64 until = g_get_monotonic_time () + LIMIT_S * G_USEC_PER_SEC;

  while ((G_OBJECT (object)->ref_count > 1 || sim_radio_get_up (f->radio) > 0)
         && g_get_monotonic_time () < until)
    {
      g_main_context_iteration (NULL, FALSE);
      g_usleep (200);
    }
}

static void
tear_down (Fixture *f, gconstpointer data)
{
  mitherm_manager_stop (f->manager);
  wait_alone (f, f->manager);
  g_assert_finalize_object (f->manager);
  wait_alone (f, f->radio);
  g_assert_finalize_object (f->radio);
  mi_models_free (f->models);
  mitherm_store_free (f->store);
  remove_tree (f->dir);
  g_free (f->dir);
}

static MithermDevice *
device (Fixture *f, const char *address)
{
  MithermDevice *found = mitherm_manager_find_device (f->manager, address);

  g_assert_nonnull (found);
  return found;
}

static void
wait_over (MithermJob *job)
{
  gint64 until = g_get_monotonic_time () + LIMIT_S * G_USEC_PER_SEC;

  while (!mitherm_job_is_over (job))
    {
      g_assert_cmpint (g_get_monotonic_time (), <, until);
      g_main_context_iteration (NULL, FALSE);
      g_usleep (100);
    }
}

/* Runs @job (transfer full) to its end, which must be good. */
static void
expect_done (MithermJob *job)
{
  g_assert_nonnull (job);
  wait_over (job);
  g_assert_no_error (mitherm_job_get_error (job));
  g_assert_cmpstr (mitherm_job_get_state (job), ==, "done");
  g_object_unref (job);
}

static void
expect_failed (MithermJob *job, MithermError code)
{
  g_assert_nonnull (job);
  wait_over (job);
  g_assert_error (mitherm_job_get_error (job), MITHERM_ERROR, (int) code);
  g_object_unref (job);
}

static void
expect_result (MithermJob *job, const char *key, const char *value)
{
  const char *got = NULL;

  g_variant_lookup (mitherm_job_get_result (job), key, "&s", &got);
  g_assert_cmpstr (got, ==, value);
}

static MithermJob *
new_activate (Fixture *f, const char *address, gboolean force)
{
  g_autoptr (GError) error = NULL;
  MithermJob *job = mitherm_job_activate_new (device (f, address), 0, force, &error);

  g_assert_no_error (error);
  return job;
}

static MithermJob *
new_login (Fixture *f, const char *address)
{
  g_autoptr (GError) error = NULL;
  MithermJob *job = mitherm_job_login_new (device (f, address), FALSE, &error);

  g_assert_no_error (error);
  return job;
}

static MithermJob *
new_info (Fixture *f, const char *address)
{
  g_autoptr (GError) error = NULL;
  MithermJob *job = mitherm_job_info_new (device (f, address), &error);

  g_assert_no_error (error);
  return job;
}

/* Keys of the store */

static void
add_token (Fixture *f, const char *address, const guint8 *token, guint8 seed, MithermKeyState state)
{
  g_autoptr (MithermKeySet) set = mitherm_key_set_new ();
  g_autoptr (GError) error = NULL;

  memset (set->keys.token, seed, MI_TOKEN_LEN);
  if (token != NULL)
    memcpy (set->keys.token, token, MI_TOKEN_LEN);
  memset (set->keys.bind_key, seed, MI_BIND_KEY_LEN);
  set->has_token = set->has_bind_key = TRUE;
  set->state = state;
  g_assert_true (mitherm_store_add (f->store, address, set, &error));
  g_assert_no_error (error);
}

static void
add_right (Fixture *f, const char *address, MithermKeyState state)
{
  add_token (f, address, bound_token, 0xb0, state);
}

static MithermKeyState
state_of (Fixture *f, const char *address, const guint8 *token)
{
  const MithermRecord *record = mitherm_store_lookup (f->store, address);
  int index = mitherm_record_find_token (record, token);

  g_assert_cmpint (index, >=, 0);
  return ((MithermKeySet *) g_ptr_array_index (record->keys, index))->state;
}

/* Activation */

static void
test_activate (Fixture *f, gconstpointer data)
{
  MiKeys keys;

  expect_done (new_activate (f, ONE, FALSE));
  g_assert_true (sim_device_get_keys (sim_radio_get_device (f->radio, ONE), &keys));
  g_assert_cmpint (state_of (f, ONE, keys.token), ==, MITHERM_KEY_CURRENT);
  g_assert_cmpint (mitherm_device_get_facts (device (f, ONE))->bound, ==, MITHERM_BOUND_YES);
  g_assert_cmpuint (mitherm_device_get_facts (device (f, ONE))->auth_version, ==, 1);
  expect_done (new_login (f, ONE));
}

static void
test_activate_again (Fixture *f, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  MiKeys first, second;

  expect_done (new_activate (f, ONE, FALSE));
  g_assert_true (sim_device_get_keys (sim_radio_get_device (f->radio, ONE), &first));
  g_assert_null (mitherm_job_activate_new (device (f, ONE), 0, FALSE, &error));
  g_assert_error (error, MITHERM_ERROR, MITHERM_ERROR_ALREADY_BOUND);
  expect_done (new_activate (f, ONE, TRUE));
  g_assert_true (sim_device_get_keys (sim_radio_get_device (f->radio, ONE), &second));
  g_assert_cmpint (state_of (f, ONE, second.token), ==, MITHERM_KEY_CURRENT);
  g_assert_cmpint (state_of (f, ONE, first.token), ==, MITHERM_KEY_OLD);
}

static void
test_activate_v2 (Fixture *f, gconstpointer data)
{
  MiKeys keys;

  expect_failed (new_activate (f, ONE, FALSE), MITHERM_ERROR_NEEDS_CREDENTIAL);
  g_assert_false (sim_device_get_keys (sim_radio_get_device (f->radio, ONE), &keys));
  g_assert_null (mitherm_store_lookup (f->store, ONE));
  g_assert_cmpuint (mitherm_device_get_facts (device (f, ONE))->auth_version, ==, 2);
}

static void
test_activate_v3 (Fixture *f, gconstpointer data)
{
  expect_failed (new_activate (f, ONE, FALSE), MITHERM_ERROR_UNSUPPORTED);
  g_assert_null (mitherm_store_lookup (f->store, ONE));
}

static int
refuse_open (int dir, const char *name)
{
  errno = ENOSPC;
  return -1;
}

static ssize_t
refuse_write (int fd, const void *bytes, size_t len)
{
  errno = ENOSPC;
  return -1;
}

static int
refuse_sync (int fd)
{
  errno = EIO;
  return -1;
}

static int
refuse_rename (int dir, const char *from, const char *to)
{
  errno = EROFS;
  return -1;
}

static const MithermStoreIo full_disk = { refuse_open, refuse_write, refuse_sync, refuse_rename };

static void
test_activate_disk_full (Fixture *f, gconstpointer data)
{
  MiKeys keys;

  mitherm_store_set_io (f->store, &full_disk);
  expect_failed (new_activate (f, ONE, FALSE), MITHERM_ERROR_STORAGE);
  mitherm_store_set_io (f->store, NULL);
  g_assert_false (sim_device_get_keys (sim_radio_get_device (f->radio, ONE), &keys));
  expect_done (new_activate (f, ONE, FALSE));
}

/* At whichever packet the link is lost: what the thermometer holds is in the store. */
static void
test_activate_cut (Fixture *f, gconstpointer data)
{
  SimDevice *sim = sim_radio_get_device (f->radio, ONE);

  for (guint at = 1; at <= 40; at++)
    {
      g_autofree char *spec = g_strdup_printf ("cut@%u", at);
      g_autoptr (GError) error = NULL;
      MithermJob *job;
      MiKeys keys;

      g_assert_true (sim_device_arm_fault (sim, spec, &error));
      job = new_activate (f, ONE, TRUE);
      wait_over (job);
      if (mitherm_job_get_error (job) != NULL)
        g_assert_cmpint (mitherm_job_get_error (job)->code, ==, MITHERM_ERROR_LINK_LOST);
      if (sim_device_get_keys (sim, &keys))
        g_assert_cmpint (
            mitherm_record_find_token (mitherm_store_lookup (f->store, ONE), keys.token), >=, 0);
      g_object_unref (job);
    }
  spin_ms (40);
}

static void
test_activate_timeout (Fixture *f, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  MithermJob *job;

  sim_radio_set_deaf (f->radio, TRUE);
  job = mitherm_job_activate_new (device (f, ONE), 1, FALSE, &error);
  g_assert_no_error (error);
  expect_failed (job, MITHERM_ERROR_TIMEOUT);
}

/* Login */

static void
login_expect (Fixture *f, const char *which)
{
  MithermJob *job = new_login (f, ONE);

  g_object_ref (job);
  expect_done (job);
  expect_result (job, "keys", which);
  g_object_unref (job);
  g_assert_cmpint (state_of (f, ONE, bound_token), ==, MITHERM_KEY_CURRENT);
  g_assert_cmpint (mitherm_device_get_facts (device (f, ONE))->bound, ==, MITHERM_BOUND_YES);
}

static void
test_login_current (Fixture *f, gconstpointer data)
{
  add_right (f, ONE, MITHERM_KEY_CURRENT);
  login_expect (f, "current");
  g_assert_cmpuint (sim_radio_count_connects (f->radio, ONE), ==, 1);
}

static void
test_login_pending (Fixture *f, gconstpointer data)
{
  add_token (f, ONE, NULL, 0x51, MITHERM_KEY_CURRENT);
  add_right (f, ONE, MITHERM_KEY_PENDING);
  login_expect (f, "pending");
  g_assert_cmpuint (sim_radio_count_connects (f->radio, ONE), ==, 2);
}

static void
test_login_history (Fixture *f, gconstpointer data)
{
  add_right (f, ONE, MITHERM_KEY_OLD);
  add_token (f, ONE, NULL, 0x51, MITHERM_KEY_OLD);
  add_token (f, ONE, NULL, 0x52, MITHERM_KEY_CURRENT);
  login_expect (f, "history:2");
  g_assert_cmpuint (sim_radio_count_connects (f->radio, ONE), ==, 3);
}

static void
test_login_wrong (Fixture *f, gconstpointer data)
{
  add_token (f, ONE, NULL, 0x51, MITHERM_KEY_CURRENT);
  add_token (f, ONE, NULL, 0x52, MITHERM_KEY_PENDING);
  expect_failed (new_login (f, ONE), MITHERM_ERROR_AUTH_FAILED);
  g_assert_cmpuint (mitherm_store_lookup (f->store, ONE)->keys->len, ==, 2);
  g_assert_true (mitherm_record_has_keys (mitherm_store_lookup (f->store, ONE)));
}

static void
test_login_not_bound (Fixture *f, gconstpointer data)
{
  add_right (f, ONE, MITHERM_KEY_CURRENT);
  expect_failed (new_login (f, ONE), MITHERM_ERROR_NOT_BOUND);
  g_assert_cmpint (mitherm_device_get_facts (device (f, ONE))->bound, ==, MITHERM_BOUND_NO);
  g_assert_cmpint (state_of (f, ONE, bound_token), ==, MITHERM_KEY_CURRENT);
}

static void
test_login_no_keys (Fixture *f, gconstpointer data)
{
  g_autoptr (GError) error = NULL;

  g_assert_null (mitherm_job_login_new (device (f, ONE), FALSE, &error));
  g_assert_error (error, MITHERM_ERROR, MITHERM_ERROR_NO_KEYS);
}

static void
test_login_spoilt (Fixture *f, gconstpointer data)
{
  add_right (f, ONE, MITHERM_KEY_CURRENT);
  g_assert_true (sim_device_arm_fault (sim_radio_get_device (f->radio, ONE), "cut@6", NULL));
  login_expect (f, "current");
  g_assert_cmpuint (sim_radio_count_connects (f->radio, ONE), ==, 2);
}

/* Whether a bind key is right is told by what the thermometer sends, without any connection. */
static void
test_login_passive (Fixture *f, gconstpointer data)
{
  static const guint8 bind_key[] = { 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17,
                                     0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f };
  g_autoptr (MithermKeySet) set = mitherm_key_set_new ();
  g_autoptr (GError) error = NULL;
  MithermJob *job;

  add_token (f, ONE, NULL, 0x51, MITHERM_KEY_CURRENT);
  job = mitherm_job_login_new (device (f, ONE), TRUE, &error);
  g_assert_no_error (error);
  for (guint i = 0; i < 200 && !mitherm_job_is_over (job); i++)
    {
      spin_ms (20);
      sim_radio_advertise (f->radio, ONE, NULL);
    }
  expect_failed (job, MITHERM_ERROR_AUTH_FAILED);
  memcpy (set->keys.bind_key, bind_key, sizeof bind_key);
  memcpy (set->keys.token, bound_token, sizeof bound_token);
  set->has_token = set->has_bind_key = TRUE;
  set->state = MITHERM_KEY_PENDING;
  g_assert_true (mitherm_store_add (f->store, ONE, set, &error));
  job = mitherm_job_login_new (device (f, ONE), TRUE, &error);
  for (guint i = 0; i < 200 && !mitherm_job_is_over (job); i++)
    {
      spin_ms (20);
      sim_radio_advertise (f->radio, ONE, NULL);
    }
  g_object_ref (job);
  expect_done (job);
  expect_result (job, "keys", "pending");
  g_object_unref (job);
  g_assert_cmpint (state_of (f, ONE, bound_token), ==, MITHERM_KEY_CURRENT);
  g_assert_cmpuint (sim_radio_count_connects (f->radio, ONE), ==, 0);
}

/* Info */

static void
test_info (Fixture *f, gconstpointer data)
{
  MithermJob *job = new_info (f, ONE);
  const MithermFacts *facts;
  guint auth = 0, battery = 0;

  g_object_ref (job);
  expect_done (job);
  expect_result (job, "firmware", "1.0.0_0130");
  expect_result (job, "hardware", "B1.4");
  expect_result (job, "model", "LYWSD03MMC");
  g_assert_true (g_variant_lookup (mitherm_job_get_result (job), "auth-version", "u", &auth));
  g_assert_true (g_variant_lookup (mitherm_job_get_result (job), "battery-mv", "u", &battery));
  g_assert_cmpuint (auth, ==, 1);
  g_assert_cmpuint (battery, ==, 3000);
  facts = mitherm_device_get_facts (device (f, ONE));
  g_assert_cmpstr (facts->firmware, ==, "1.0.0_0130");
  g_assert_cmpstr (facts->hardware, ==, "B1.4");
  g_assert_cmpint (facts->bound, ==, MITHERM_BOUND_NO); /* device info of 4 bytes */
  g_assert_cmpint (mitherm_device_get_signed (device (f, ONE)), ==, MI_SIGNED_NOT_REQUIRED);
  g_object_unref (job);
}

/* Updates */

static GBytes *
stock_image (const char *version)
{
  return images_bytes (
      images_build_text (4100, 0, 0, "mible-login-info", "LYWSD03MMC", version, NULL));
}

static GBytes *
custom_image (guint hardware_id)
{
  return images_bytes (images_build_text (4100, IMAGES_CUSTOM, (guint16) (0x0200 + hardware_id),
                                          "github.com/pvvx", "V5.8", NULL));
}

static MithermJob *
try_update (Fixture *f, const char *address, GBytes *image, const MithermUpdateOptions *options,
            GError **error)
{
  g_autoptr (GPtrArray) files = g_ptr_array_new_with_free_func ((GDestroyNotify) g_bytes_unref);
  MithermUpdateOptions usual = { .window = 8 };

  g_ptr_array_add (files, image);
  return mitherm_job_update_new (device (f, address), files, options != NULL ? options : &usual,
                                 error);
}

static MithermJob *
new_update (Fixture *f, const char *address, GBytes *image, const MithermUpdateOptions *options)
{
  g_autoptr (GError) error = NULL;
  MithermJob *job = try_update (f, address, image, options, &error);

  g_assert_no_error (error);
  return job;
}

static void
expect_refused (Fixture *f, GBytes *image, MithermRisk accept, MithermError code)
{
  const MithermUpdateOptions options = { .window = 8, .accept = accept };
  g_autoptr (GError) error = NULL;

  g_assert_null (try_update (f, ONE, image, &options, &error));
  g_assert_error (error, MITHERM_ERROR, (int) code);
}

static const char *
sim_version (Fixture *f)
{
  return sim_device_get_version (sim_radio_get_device (f->radio, ONE));
}

static void
test_update_stock (Fixture *f, gconstpointer data)
{
  MithermJob *job;
  guint attempts = 0;

  add_right (f, ONE, MITHERM_KEY_CURRENT);
  job = g_object_ref (new_update (f, ONE, stock_image ("1.0.0_0131"), NULL));
  expect_done (job);
  expect_result (job, "version-before", "1.0.0_0130");
  expect_result (job, "version", "1.0.0_0131");
  expect_result (job, "proof", "version");
  g_assert_true (g_variant_lookup (mitherm_job_get_result (job), "attempts", "u", &attempts));
  g_assert_cmpuint (attempts, ==, 1);
  g_assert_cmpfloat (mitherm_job_get_progress (job), ==, 1.0);
  g_assert_cmpstr (sim_version (f), ==, "1.0.0_0131");
  g_assert_cmpstr (mitherm_device_get_facts (device (f, ONE))->firmware, ==, "1.0.0_0131");
  g_object_unref (job);
  expect_done (new_login (f, ONE));
}

static void
test_update_custom_and_back (Fixture *f, gconstpointer data)
{
  add_right (f, ONE, MITHERM_KEY_CURRENT);
  expect_done (new_update (f, ONE, custom_image (0), NULL));
  g_assert_cmpstr (sim_version (f), ==, "V5.8");
  /* Custom firmware wants no login; the way back is no downgrade. */
  expect_done (
      new_update (f, ONE, stock_image ("1.0.0_0130"),
                  &(MithermUpdateOptions){ .window = 8, .accept = MITHERM_RISK_UNSIGNED }));
  g_assert_cmpstr (sim_version (f), ==, "1.0.0_0130");
}

static void
test_update_weak (Fixture *f, gconstpointer data)
{
  MithermJob *job;

  add_right (f, ONE, MITHERM_KEY_CURRENT);
  job = g_object_ref (new_update (f, ONE, stock_image ("1.0.0_0130"), NULL));
  expect_done (job);
  expect_result (job, "proof", "weak");
  g_object_unref (job);
}

static void
test_update_hops (Fixture *f, gconstpointer data)
{
  g_autoptr (GPtrArray) files = g_ptr_array_new_with_free_func ((GDestroyNotify) g_bytes_unref);
  const MithermUpdateOptions options = { .window = 8 };
  g_autoptr (GError) error = NULL;
  MithermJob *job;

  add_right (f, ONE, MITHERM_KEY_CURRENT);
  g_ptr_array_add (files, stock_image ("1.0.0_0131"));
  g_ptr_array_add (files, stock_image ("1.0.0_0132"));
  job = mitherm_job_update_new (device (f, ONE), files, &options, &error);
  g_assert_no_error (error);
  g_object_ref (job);
  expect_done (job);
  expect_result (job, "version-before", "1.0.0_0130");
  expect_result (job, "version", "1.0.0_0132");
  g_assert_cmpstr (sim_version (f), ==, "1.0.0_0132");
  g_object_unref (job);
}

static void
test_update_activates (Fixture *f, gconstpointer data)
{
  const MithermUpdateOptions options = { .window = 8, .activate = TRUE };
  MiKeys keys;

  expect_refused (f, stock_image ("1.0.0_0131"), 0, MITHERM_ERROR_NO_KEYS);
  expect_done (new_update (f, ONE, stock_image ("1.0.0_0131"), &options));
  g_assert_cmpstr (sim_version (f), ==, "1.0.0_0131");
  g_assert_true (sim_device_get_keys (sim_radio_get_device (f->radio, ONE), &keys));
  g_assert_cmpint (state_of (f, ONE, keys.token), ==, MITHERM_KEY_CURRENT);
}

/* Keys are stored, but the thermometer has lost its own (E0). */
static void
test_update_activates_again (Fixture *f, gconstpointer data)
{
  const MithermUpdateOptions options = { .window = 8, .activate = TRUE };
  MiKeys keys;

  add_right (f, ONE, MITHERM_KEY_CURRENT);
  expect_done (new_update (f, ONE, stock_image ("1.0.0_0131"), &options));
  g_assert_true (sim_device_get_keys (sim_radio_get_device (f->radio, ONE), &keys));
  g_assert_cmpint (state_of (f, ONE, keys.token), ==, MITHERM_KEY_CURRENT);
  g_assert_cmpint (state_of (f, ONE, bound_token), ==, MITHERM_KEY_OLD);
}

static void
test_update_not_updated (Fixture *f, gconstpointer data)
{
  const MithermUpdateOptions options
      = { .window = 8, .accept = MITHERM_RISK_UNSIGNED | MITHERM_RISK_DOWNGRADE };

  add_right (f, ONE, MITHERM_KEY_CURRENT);
  expect_failed (new_update (f, ONE, stock_image ("1.0.0_0131"), &options),
                 MITHERM_ERROR_NOT_UPDATED);
  g_assert_cmpstr (sim_version (f), ==, "2.1.1_0159");
}

static void
test_update_freezes (Fixture *f, gconstpointer data)
{
  const MithermUpdateOptions options
      = { .window = 8, .accept = MITHERM_RISK_UNSIGNED | MITHERM_RISK_DOWNGRADE };

  add_right (f, ONE, MITHERM_KEY_CURRENT);
  expect_failed (new_update (f, ONE, stock_image ("1.0.0_0131"), &options), MITHERM_ERROR_TIMEOUT);
}

static void
test_update_not_signed (Fixture *f, gconstpointer data)
{
  add_right (f, ONE, MITHERM_KEY_CURRENT);
  /* The running version is not known yet: the job reads it. */
  expect_failed (new_update (f, ONE, stock_image ("2.1.2_0001"), NULL), MITHERM_ERROR_NOT_SIGNED);
  g_assert_cmpuint (sim_radio_count_connects (f->radio, ONE), ==, 1);
  /* Now it is. */
  expect_refused (f, stock_image ("2.1.2_0001"), 0, MITHERM_ERROR_NOT_SIGNED);
}

static void
test_update_bad_image (Fixture *f, gconstpointer data)
{
  g_autoptr (GByteArray) broken = images_build (4100, 1, 0, 0, 0);
  GByteArray *big
      = images_build_text (0x20004, 0, 0, "mible-login-info", "LYWSD03MMC", "1.0.0_0131", NULL);

  add_right (f, ONE, MITHERM_KEY_CURRENT);
  broken->data[100] ^= 1;
  expect_refused (f, g_bytes_new (broken->data, broken->len), 0, MITHERM_ERROR_BAD_IMAGE);
  expect_refused (f, g_bytes_new ("", 0), 0, MITHERM_ERROR_BAD_IMAGE);
  expect_refused (f,
                  images_bytes (images_build_text (516, 0, 0, "mible-login-info", "LYWSD03MMC",
                                                   "1.0.0_0131", NULL)),
                  0, MITHERM_ERROR_BAD_IMAGE);
  expect_refused (f, images_bytes (big), 0, MITHERM_ERROR_BAD_IMAGE);
  g_assert_cmpuint (sim_radio_count_connects (f->radio, ONE), ==, 0);
}

static void
test_update_wrong_hardware (Fixture *f, gconstpointer data)
{
  add_right (f, ONE, MITHERM_KEY_CURRENT);
  expect_refused (f, custom_image (1), 0, MITHERM_ERROR_WRONG_HARDWARE); /* for MHO-C401 */
  expect_refused (f, images_bytes (images_build (4100, 1, 0, 0, 0)), MITHERM_RISK_UNKNOWN_VERSION,
                  MITHERM_ERROR_WRONG_HARDWARE); /* nothing tells what it is for */
  g_assert_cmpuint (sim_radio_count_connects (f->radio, ONE), ==, 0);
}

static void
test_update_unknown_version (Fixture *f, gconstpointer data)
{
  const MithermRisk hardware = MITHERM_RISK_WRONG_HARDWARE;
  const MithermUpdateOptions options
      = { .window = 8, .accept = hardware, .expect_version = "7.7.7" };

  add_right (f, ONE, MITHERM_KEY_CURRENT);
  expect_refused (f, images_bytes (images_build (4100, 1, 0, 0, 0)), hardware,
                  MITHERM_ERROR_BAD_IMAGE);
  expect_failed (new_update (f, ONE, images_bytes (images_build (4100, 1, 0, 0, 0)), &options),
                 MITHERM_ERROR_NOT_UPDATED);
}

static void
test_update_downgrade (Fixture *f, gconstpointer data)
{
  const MithermUpdateOptions options = { .window = 8, .accept = MITHERM_RISK_DOWNGRADE };

  add_right (f, ONE, MITHERM_KEY_CURRENT);
  expect_failed (new_update (f, ONE, stock_image ("1.0.0_0109"), NULL), MITHERM_ERROR_BAD_IMAGE);
  g_assert_cmpstr (sim_version (f), ==, "1.0.0_0130");
  expect_refused (f, stock_image ("1.0.0_0109"), 0, MITHERM_ERROR_BAD_IMAGE);
  expect_done (new_update (f, ONE, stock_image ("1.0.0_0109"), &options));
  g_assert_cmpstr (sim_version (f), ==, "1.0.0_0109");
}

static void
test_update_battery (Fixture *f, gconstpointer data)
{
  const MithermUpdateOptions options = { .window = 8, .accept = MITHERM_RISK_BATTERY_LOW };

  add_right (f, ONE, MITHERM_KEY_CURRENT);
  expect_failed (new_update (f, ONE, stock_image ("1.0.0_0131"), NULL), MITHERM_ERROR_BATTERY_LOW);
  g_assert_cmpstr (sim_version (f), ==, "1.0.0_0130");
  expect_done (new_update (f, ONE, stock_image ("1.0.0_0131"), &options));
}

static void
test_update_interrupted (Fixture *f, gconstpointer data)
{
  MithermJob *job;
  guint attempts = 0;

  add_right (f, ONE, MITHERM_KEY_CURRENT);
  g_assert_true (sim_device_arm_fault (sim_radio_get_device (f->radio, ONE), "cut@150", NULL));
  job = g_object_ref (new_update (f, ONE, stock_image ("1.0.0_0131"), NULL));
  expect_done (job);
  g_assert_true (g_variant_lookup (mitherm_job_get_result (job), "attempts", "u", &attempts));
  g_assert_cmpuint (attempts, ==, 2);
  g_assert_cmpstr (sim_version (f), ==, "1.0.0_0131");
  g_object_unref (job);
}

static void
test_update_given_up (Fixture *f, gconstpointer data)
{
  SimDevice *sim = sim_radio_get_device (f->radio, ONE);
  MithermJob *job;
  guint attempts = 0;

  add_right (f, ONE, MITHERM_KEY_CURRENT);
  for (guint i = 0; i < 5; i++)
    g_assert_true (sim_device_arm_fault (sim, "cut@150", NULL));
  job = g_object_ref (new_update (f, ONE, stock_image ("1.0.0_0131"), NULL));
  expect_failed (job, MITHERM_ERROR_LINK_LOST);
  g_assert_true (g_variant_lookup (mitherm_job_get_result (job), "attempts", "u", &attempts));
  g_assert_cmpuint (attempts, ==, 3);
  g_assert_cmpstr (sim_version (f), ==, "1.0.0_0130");
  g_object_unref (job);
}

/* Cancelling */

static void
wait_state (MithermJob *job, const char *state)
{
  gint64 until = g_get_monotonic_time () + LIMIT_S * G_USEC_PER_SEC;

  while (!g_str_equal (mitherm_job_get_state (job), state))
    {
      g_assert_false (mitherm_job_is_over (job));
      g_assert_cmpint (g_get_monotonic_time (), <, until);
      g_main_context_iteration (NULL, FALSE);
    }
}

static void
test_cancel (Fixture *f, gconstpointer data)
{
  static const char *const states[]
      = { "queued", "connecting", "discovering", "info", "logging-in", "uploading" };

  add_right (f, ONE, MITHERM_KEY_CURRENT);
  for (gsize i = 0; i < G_N_ELEMENTS (states); i++)
    {
      MithermJob *job = new_update (f, ONE, stock_image ("1.0.0_0131"), NULL);
      g_autoptr (GError) error = NULL;

      wait_state (job, states[i]);
      g_assert_true (mitherm_job_cancel (job, &error));
      g_assert_no_error (error);
      g_assert_cmpstr (mitherm_job_get_state (job), ==, "cancelled");
      expect_failed (job, MITHERM_ERROR_CANCELLED);
      g_assert_null (mitherm_device_get_job (device (f, ONE)));
      expect_done (new_login (f, ONE)); /* the adapter comes free, the thermometer runs */
      g_assert_cmpstr (sim_version (f), ==, "1.0.0_0130");
    }
}

static void
test_cancel_too_late (Fixture *f, gconstpointer data)
{
  static const char *const states[] = { "rebooting", "verifying" };

  add_right (f, ONE, MITHERM_KEY_CURRENT);
  for (gsize i = 0; i < G_N_ELEMENTS (states); i++)
    {
      g_autoptr (GError) error = NULL;
      MithermJob *job = new_update (f, ONE, stock_image ("1.0.0_0131"), NULL);

      wait_state (job, states[i]);
      g_assert_false (mitherm_job_cancel (job, &error));
      g_assert_error (error, MITHERM_ERROR, MITHERM_ERROR_BUSY);
      expect_done (job);
    }
}

static void
test_cancel_registration (Fixture *f, gconstpointer data)
{
  MithermJob *job = new_activate (f, ONE, FALSE);
  MiKeys keys;

  wait_state (job, "registering");
  g_assert_true (mitherm_job_cancel (job, NULL));
  expect_failed (job, MITHERM_ERROR_CANCELLED);
  spin_ms (100);
  if (sim_device_get_keys (sim_radio_get_device (f->radio, ONE), &keys))
    g_assert_cmpint (state_of (f, ONE, keys.token), >=, MITHERM_KEY_PENDING);
}

/* The queue */

static void
test_one_adapter (Fixture *f, gconstpointer data)
{
  MithermJob *first = new_activate (f, ONE, FALSE);
  MithermJob *second = new_activate (f, TWO, FALSE);

  wait_state (first, "registering");
  g_assert_cmpstr (mitherm_job_get_state (second), ==, "queued");
  expect_done (first);
  expect_done (second);
  g_assert_cmpuint (sim_radio_get_peak (f->radio), ==, 1);
}

static void
test_two_adapters (Fixture *f, gconstpointer data)
{
  const char *const adapters[] = { "hci0", "hci1", NULL };
  MithermJob *first, *second;

  sim_radio_set_adapters (f->radio, adapters);
  restart_manager (f);
  sim_radio_advertise (f->radio, ONE, "hci0");
  sim_radio_advertise (f->radio, TWO, "hci1");
  first = new_activate (f, ONE, FALSE);
  second = new_activate (f, TWO, FALSE);
  expect_done (first);
  expect_done (second);
  g_assert_cmpuint (sim_radio_get_peak (f->radio), ==, 2);
}

static void
test_one_job_each (Fixture *f, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  MithermJob *job = new_activate (f, ONE, FALSE);

  g_assert_null (mitherm_job_info_new (device (f, ONE), &error));
  g_assert_error (error, MITHERM_ERROR, MITHERM_ERROR_BUSY);
  expect_done (job);
  expect_done (new_info (f, ONE));
}

/* Presence */

static void
test_expiry (Fixture *f, gconstpointer data)
{
  add_right (f, TWO, MITHERM_KEY_CURRENT);
  g_assert_cmpuint (mitherm_manager_count_devices (f->manager), ==, 2);
  mitherm_manager_set_expiry (f->manager, 1);
  spin_ms (2600);
  g_assert_null (mitherm_manager_find_device (f->manager, ONE));
  g_assert_nonnull (mitherm_manager_find_device (f->manager, TWO));
  sim_radio_advertise (f->radio, NULL, NULL);
  g_assert_nonnull (mitherm_manager_find_device (f->manager, ONE));
}

/* As a call that had to wait for polkit does. */
static void
test_no_job_of_gone (Fixture *f, gconstpointer data)
{
  g_autoptr (MithermDevice) gone = g_object_ref (device (f, ONE));
  g_autoptr (GError) error = NULL;

  mitherm_manager_set_expiry (f->manager, 1);
  spin_ms (2600);
  sim_radio_advertise (f->radio, NULL, NULL);
  g_assert_true (device (f, ONE) != gone);
  g_assert_null (mitherm_job_info_new (gone, &error));
  g_assert_error (error, MITHERM_ERROR, MITHERM_ERROR_NOT_FOUND);
  g_clear_error (&error);
  g_assert_null (mitherm_job_activate_new (gone, 0, FALSE, &error));
  g_assert_error (error, MITHERM_ERROR, MITHERM_ERROR_NOT_FOUND);
}

/* One that has gone may live on in a job that can still be read, or in a call. */
static void
test_gone_has_no_news (Fixture *f, gconstpointer data)
{
  gint64 until = g_get_monotonic_time () + 6 * G_USEC_PER_SEC;
  g_autoptr (MithermDevice) gone = NULL;
  GList *link;

  f->config.stale_s = 2;
  restart_manager (f);
  sim_radio_advertise (f->radio, NULL, NULL);
  gone = g_object_ref (device (f, ONE));
  g_assert_true (mitherm_device_is_sensor (gone));
  mitherm_manager_set_expiry (f->manager, 1);
  link = mitherm_device_get_news_link (gone);
  while (g_get_monotonic_time () < until)
    {
      /* It keeps the others' turns going. */
      sim_radio_advertise (f->radio, TWO, "hci0");
      spin_ms (5);
      if (mitherm_manager_find_device (f->manager, ONE) == NULL)
        g_assert_true (link->prev == NULL && link->next == NULL);
    }
  g_assert_null (mitherm_manager_find_device (f->manager, ONE));
}

static void
test_restart (Fixture *f, gconstpointer data)
{
  expect_done (new_activate (f, ONE, FALSE));
  expect_done (new_info (f, ONE));
  restart_manager (f);
  g_assert_cmpuint (mitherm_manager_count_devices (f->manager), ==, 1);
  g_assert_cmpstr (mitherm_device_get_facts (device (f, ONE))->firmware, ==, "1.0.0_0130");
  g_assert_cmpint (mitherm_device_get_facts (device (f, ONE))->bound, ==, MITHERM_BOUND_YES);
}

static void
test_stop_in_the_middle (Fixture *f, gconstpointer data)
{
  g_autoptr (MithermJob) job = new_activate (f, ONE, FALSE);

  wait_state (job, "registering");
  mitherm_manager_stop (f->manager);
  spin_ms (50);
}

/* Warnings about full disks are part of what is tested; they must not be fatal. */
static GLogWriterOutput
write_log (GLogLevelFlags level, const GLogField *fields, gsize n, gpointer data)
{
  if ((level & G_LOG_LEVEL_WARNING) != 0)
    return G_LOG_WRITER_HANDLED;
  return g_log_writer_default (level, fields, n, data);
}

static void
shorten_waits (void)
{
  mitherm_job_timing.retry_ms = 300;
  mitherm_job_timing.read_ms = 3000;
  mitherm_job_timing.step_ms = 30000;
  mitherm_job_timing.reboot_ms = 4000;
  mitherm_job_timing.pause_ms = 20;
  mitherm_job_timing.look_ms = 50;
  mitherm_job_timing.linger_ms = 1;
}

#define ADD(path, devices, func) g_test_add (path, Fixture, devices, set_up, func, tear_down)
#define V2(more)                 "[" ONE "]\nModel=LYWSD03MMC\nFirmware=2.1.1_0159\n" more

static void
add_updates (void)
{
  static const char bound[] = STOCK (ONE) BOUND;

  ADD ("/update/new-version-is-proven", bound, test_update_stock);
  ADD ("/update/custom-and-back", bound, test_update_custom_and_back);
  ADD ("/update/same-version-is-weak-proof", bound, test_update_weak);
  ADD ("/update/several-images-are-several-hops", bound, test_update_hops);
  ADD ("/update/activates-when-asked", STOCK (ONE), test_update_activates);
  ADD ("/update/activates-when-keys-were-lost", STOCK (ONE), test_update_activates_again);
  ADD ("/update/old-version-answers", V2 (BOUND "OnReject=restart\n"), test_update_not_updated);
  ADD ("/update/silence-after-the-upload", V2 (BOUND), test_update_freezes);
  ADD ("/update/unsigned-is-refused", V2 (BOUND), test_update_not_signed);
  ADD ("/update/bad-images-are-refused", bound, test_update_bad_image);
  ADD ("/update/other-hardware-is-refused", bound, test_update_wrong_hardware);
  ADD ("/update/unknown-version-is-refused", bound, test_update_unknown_version);
  ADD ("/update/downgrade-is-a-risk", bound, test_update_downgrade);
  ADD ("/update/low-battery-is-a-risk", STOCK (ONE) BOUND "Battery=40\n", test_update_battery);
  ADD ("/update/interrupted-upload-starts-again", bound, test_update_interrupted);
  ADD ("/update/given-up-after-three-attempts", bound, test_update_given_up);
  ADD ("/cancel/in-every-state", bound, test_cancel);
  ADD ("/cancel/refused-after-the-end-command", bound, test_cancel_too_late);
}

int
main (int argc, char **argv)
{
  static const char bound[] = STOCK (ONE) BOUND;
  static const char two[] = STOCK (ONE) STOCK (TWO);

  g_test_init (&argc, &argv, NULL);
  g_log_set_writer_func (write_log, NULL, NULL);
  shorten_waits ();
  ADD ("/activate/keys-are-stored-and-work", STOCK (ONE), test_activate);
  ADD ("/activate/again-only-by-force", STOCK (ONE), test_activate_again);
  ADD ("/activate/version-2-needs-a-credential", V2 (""), test_activate_v2);
  ADD ("/activate/version-3-is-unsupported", STOCK (ONE) "AuthVersion=3\n", test_activate_v3);
  ADD ("/activate/full-disk-stops-before-keys", STOCK (ONE), test_activate_disk_full);
  ADD ("/activate/lost-link-loses-no-keys", STOCK (ONE), test_activate_cut);
  ADD ("/activate/time-limit-holds", STOCK (ONE), test_activate_timeout);
  ADD ("/login/current-keys", bound, test_login_current);
  ADD ("/login/pending-keys-become-current", bound, test_login_pending);
  ADD ("/login/history-comes-back", bound, test_login_history);
  ADD ("/login/wrong-keys-are-all-kept", bound, test_login_wrong);
  ADD ("/login/not-bound-keeps-keys", STOCK (ONE), test_login_not_bound);
  ADD ("/login/no-keys-is-refused-at-once", STOCK (ONE), test_login_no_keys);
  ADD ("/login/lost-link-is-tried-again", bound, test_login_spoilt);
  ADD ("/login/passive-compares-advertisements", STOCK (ONE) BOUND "Advert=mibeacon-encrypted\n",
       test_login_passive);
  ADD ("/info/tells-versions-and-battery", STOCK (ONE), test_info);
  add_updates ();
  ADD ("/cancel/registration-keeps-keys", STOCK (ONE), test_cancel_registration);
  ADD ("/queue/one-after-another-on-one-adapter", two, test_one_adapter);
  ADD ("/queue/side-by-side-on-two-adapters", two, test_two_adapters);
  ADD ("/queue/one-job-for-each-thermometer", two, test_one_job_each);
  ADD ("/device/leaves-when-silent-unless-keys", two, test_expiry);
  ADD ("/device/that-has-gone-gets-no-job", two, test_no_job_of_gone);
  ADD ("/device/that-has-gone-has-no-news",
       STOCK (ONE) "Advert=atc1441\n" STOCK (TWO) "Advert=atc1441\n", test_gone_has_no_news);
  ADD ("/device/with-keys-survives-a-restart", two, test_restart);
  ADD ("/manager/stops-in-the-middle-of-a-job", STOCK (ONE), test_stop_in_the_middle);
  return g_test_run ();
}
