/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "mitherm-device.h"

#include <string.h>
#include <unistd.h>

#include "mitherm-dbus.h"
#include "mitherm-error.h"
#include "mitherm-file.h"
#include "mitherm-job.h"
#include "mitherm-log.h"
#include "mitherm-options.h"

#define RSSI_UNKNOWN 127
/* Another adapter takes over when it hears this much better, or the old one hears nothing. */
#define ADAPTER_MARGIN_DB  6
#define ADAPTER_SILENCE_US (30 * G_USEC_PER_SEC)
#define NAME_MAX_LEN       64
#define HOPS_MAX           8

struct _MithermDevice
{
  GObject parent_instance;

  MithermManager *manager; /* not owned: it owns its devices */
  char address[18];
  gboolean dirty;
  gboolean custom;
  gint16 rssi;
  char *path;
  GDBusObjectSkeleton *object;
  MithermDBusDevice1 *skeleton;
  MithermFacts facts;
  const MiModel *model;
  const char *adapter;     /* interned */
  gint64 adapter_heard_us; /* when that adapter heard it, monotonic */
  gint64 heard_us;         /* monotonic */
  gint64 seen_us;          /* UTC */
  MithermJob *job;         /* not owned */
  MithermDeviceAdvertFunc listener;
  gpointer listener_data;
  GList link;
};

G_DEFINE_FINAL_TYPE (MithermDevice, mitherm_device, G_TYPE_OBJECT)

static void
mitherm_device_finalize (GObject *object)
{
  MithermDevice *self = MITHERM_DEVICE (object);

  g_signal_handlers_disconnect_by_data (self->skeleton, self);
  g_clear_object (&self->skeleton);
  g_clear_object (&self->object);
  mitherm_facts_clear (&self->facts);
  g_free (self->path);
  G_OBJECT_CLASS (mitherm_device_parent_class)->finalize (object);
}

static void
mitherm_device_class_init (MithermDeviceClass *klass)
{
  G_OBJECT_CLASS (klass)->finalize = mitherm_device_finalize;
}

static void
mitherm_device_init (MithermDevice *self)
{
  self->rssi = RSSI_UNKNOWN;
  self->link.data = self;
}

/* Properties */

static void
show_facts (MithermDevice *self)
{
  const MithermFacts *facts = &self->facts;
  MithermDBusDevice1 *skeleton = self->skeleton;
  MiModels *models = mitherm_manager_get_models (self->manager);

  self->model = mi_models_find (models, facts->model != NULL ? facts->model : "");
  mitherm_dbus_device1_set_name (skeleton, facts->name != NULL ? facts->name : "");
  mitherm_dbus_device1_set_model (skeleton, facts->model != NULL ? facts->model : "");
  mitherm_dbus_device1_set_product_id (skeleton, facts->product_id);
  mitherm_dbus_device1_set_hardware (skeleton, facts->hardware != NULL ? facts->hardware : "");
  mitherm_dbus_device1_set_firmware (skeleton, facts->firmware != NULL ? facts->firmware : "");
  mitherm_dbus_device1_set_auth_version (skeleton, facts->auth_version);
  mitherm_dbus_device1_set_bound (skeleton, mitherm_bound_to_string (facts->bound));
  mitherm_dbus_device1_set_signed (skeleton,
                                   mi_signed_to_string (mitherm_device_get_signed (self)));
}

static void
save_facts (MithermDevice *self)
{
  g_autoptr (GError) error = NULL;

  if (!mitherm_store_set_facts (mitherm_manager_get_store (self->manager), self->address,
                                &self->facts, &error))
    mitherm_log_device (G_LOG_LEVEL_WARNING, self->address, "%s", error->message);
}

void
mitherm_device_keys_changed (MithermDevice *self)
{
  mitherm_dbus_device1_set_has_keys (self->skeleton, mitherm_device_has_keys (self));
  save_facts (self);
}

/* Method calls: authorized, checked, turned into a job, answered. */

static void
answer_with_job (MithermDevice *self, GDBusMethodInvocation *invocation, MithermJob *job,
                 GError *error)
{
  if (job == NULL)
    {
      g_dbus_method_invocation_take_error (invocation, error);
      return;
    }
  g_dbus_interface_skeleton_flush (G_DBUS_INTERFACE_SKELETON (self->skeleton));
  g_dbus_method_invocation_return_value (invocation,
                                         g_variant_new ("(o)", mitherm_job_get_path (job)));
  g_object_unref (job);
}

static GVariant *
get_options (GDBusMethodInvocation *invocation, gsize index)
{
  return g_variant_get_child_value (g_dbus_method_invocation_get_parameters (invocation), index);
}

static void
activate (GDBusMethodInvocation *invocation, GObject *object)
{
  MithermDevice *self = MITHERM_DEVICE (object);
  g_autoptr (GVariant) options = get_options (invocation, 0);
  guint timeout_s = 0;
  gboolean force = FALSE;
  const MithermOption known[] = { { "timeout", "u", &timeout_s }, { "force", "b", &force } };
  GError *error = NULL;
  MithermJob *job = NULL;

  if (mitherm_options_parse (options, known, G_N_ELEMENTS (known), &error))
    job = mitherm_job_activate_new (self, timeout_s, force, &error);
  answer_with_job (self, invocation, job, error);
}

static gboolean
on_activate (MithermDBusDevice1 *skeleton, GDBusMethodInvocation *invocation, GVariant *options,
             gpointer user_data)
{
  MithermDevice *self = user_data;

  mitherm_manager_authorize (self->manager, invocation, "activate", activate, G_OBJECT (self));
  return TRUE;
}

static void
login (GDBusMethodInvocation *invocation, GObject *object)
{
  MithermDevice *self = MITHERM_DEVICE (object);
  g_autoptr (GVariant) options = get_options (invocation, 0);
  gboolean passive = FALSE;
  const MithermOption known[] = { { "passive", "b", &passive } };
  GError *error = NULL;
  MithermJob *job = NULL;

  if (mitherm_options_parse (options, known, G_N_ELEMENTS (known), &error))
    job = mitherm_job_login_new (self, passive, &error);
  answer_with_job (self, invocation, job, error);
}

static gboolean
on_login (MithermDBusDevice1 *skeleton, GDBusMethodInvocation *invocation, GVariant *options,
          gpointer user_data)
{
  MithermDevice *self = user_data;

  mitherm_manager_authorize (self->manager, invocation, "login", login, G_OBJECT (self));
  return TRUE;
}

static gboolean
read_handle (GDBusMethodInvocation *invocation, gint handle, GPtrArray *files, GError **error)
{
  GDBusMessage *message = g_dbus_method_invocation_get_message (invocation);
  int fd = mitherm_file_get_fd (g_dbus_message_get_unix_fd_list (message), handle, error);
  GBytes *bytes;

  if (fd < 0)
    return FALSE;
  bytes = mitherm_file_read (fd, "image", error);
  close (fd);
  if (bytes == NULL)
    return FALSE;
  g_ptr_array_add (files, bytes);
  return TRUE;
}

static gboolean
read_images (GDBusMethodInvocation *invocation, GVariant *more, GPtrArray *files, GError **error)
{
  g_autoptr (GVariant) first = get_options (invocation, 0);
  gsize n = more != NULL ? g_variant_n_children (more) : 0;

  if (n >= HOPS_MAX)
    {
      g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_INVALID_ARGS,
                   "Option \"images\" has %" G_GSIZE_FORMAT " entries, at most %d are taken.", n,
                   HOPS_MAX - 1);
      return FALSE;
    }
  if (!read_handle (invocation, g_variant_get_handle (first), files, error))
    return FALSE;
  for (gsize i = 0; i < n; i++)
    {
      g_autoptr (GVariant) item = g_variant_get_child_value (more, i);

      if (!read_handle (invocation, g_variant_get_handle (item), files, error))
        return FALSE;
    }
  return TRUE;
}

static gboolean
parse_risks (char **names, MithermRisk *accept, GError **error)
{
  for (char **name = names; name != NULL && *name != NULL; name++)
    {
      MithermRisk risk;

      if (!mitherm_risk_from_string (*name, &risk))
        {
          g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_INVALID_ARGS,
                       "Unknown risk \"%s\" in option \"accept\".", *name);
          return FALSE;
        }
      *accept |= risk;
    }
  return TRUE;
}

static void
update (GDBusMethodInvocation *invocation, GObject *object)
{
  MithermDevice *self = MITHERM_DEVICE (object);
  g_autoptr (GVariant) options = get_options (invocation, 1);
  g_autoptr (GPtrArray) files = g_ptr_array_new_with_free_func ((GDestroyNotify) g_bytes_unref);
  g_autoptr (GVariant) more = NULL;
  g_autofree char *expect = NULL;
  g_autofree char *transport = NULL;
  g_auto (GStrv) risks = NULL;
  MithermUpdateOptions wanted = { 0 };
  const MithermOption known[] = {
    { "activate", "b", &wanted.activate },
    { "expect-version", "s", &expect },
    { "accept", "as", &risks },
    { "images", "ah", &more },
    { "window", "u", &wanted.window },
    { "transport", "s", &transport },
  };
  GError *error = NULL;
  MithermJob *job = NULL;

  if (mitherm_options_parse (options, known, G_N_ELEMENTS (known), &error)
      && parse_risks (risks, &wanted.accept, &error)
      && read_images (invocation, more, files, &error))
    {
      wanted.expect_version = expect;
      wanted.transport = transport;
      job = mitherm_job_update_new (self, files, &wanted, &error);
    }
  answer_with_job (self, invocation, job, error);
}

static gboolean
on_update (MithermDBusDevice1 *skeleton, GDBusMethodInvocation *invocation, GUnixFDList *fds,
           GVariant *image, GVariant *options, gpointer user_data)
{
  MithermDevice *self = user_data;

  mitherm_manager_authorize (self->manager, invocation, "update", update, G_OBJECT (self));
  return TRUE;
}

/* Reading changes nothing: no authorization. */
static gboolean
on_read_info (MithermDBusDevice1 *skeleton, GDBusMethodInvocation *invocation, gpointer user_data)
{
  MithermDevice *self = user_data;
  GError *error = NULL;
  MithermJob *job = mitherm_job_info_new (self, &error);

  answer_with_job (self, invocation, job, error);
  return TRUE;
}

static gboolean
do_forget (MithermDevice *self, gboolean purge, GError **error)
{
  const MithermRecord *record = mitherm_device_get_record (self);

  if (self->job != NULL)
    {
      g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_BUSY,
                   "%s has a job; cancel it or wait for its end. Its keys are as before.",
                   self->address);
      return FALSE;
    }
  if (record == NULL || (purge ? record->keys->len == 0 : !mitherm_record_has_keys (record)))
    {
      g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_NO_KEYS, "No keys of %s are stored.",
                   self->address);
      return FALSE;
    }
  return mitherm_store_forget (mitherm_manager_get_store (self->manager), self->address, purge,
                               error);
}

static void
forget (GDBusMethodInvocation *invocation, GObject *object)
{
  g_autoptr (MithermDevice) self = g_object_ref (MITHERM_DEVICE (object));
  g_autoptr (GVariant) options = get_options (invocation, 0);
  gboolean purge = FALSE;
  const MithermOption known[] = { { "purge", "b", &purge } };
  GError *error = NULL;

  if (!mitherm_options_parse (options, known, G_N_ELEMENTS (known), &error)
      || !do_forget (self, purge, &error))
    {
      g_dbus_method_invocation_take_error (invocation, error);
      return;
    }
  mitherm_log_device (G_LOG_LEVEL_MESSAGE, self->address, "keys %s",
                      purge ? "erased" : "moved to the history");
  mitherm_device_keys_changed (self);
  g_dbus_interface_skeleton_flush (G_DBUS_INTERFACE_SKELETON (self->skeleton));
  g_dbus_method_invocation_return_value (invocation, NULL);
  mitherm_manager_review (self->manager, self);
}

static gboolean
on_forget (MithermDBusDevice1 *skeleton, GDBusMethodInvocation *invocation, GVariant *options,
           gpointer user_data)
{
  MithermDevice *self = user_data;

  mitherm_manager_authorize (self->manager, invocation, "forget", forget, G_OBJECT (self));
  return TRUE;
}

/* Construction */

static void
make_skeleton (MithermDevice *self)
{
  self->skeleton = mitherm_dbus_device1_skeleton_new ();
  mitherm_dbus_device1_set_address (self->skeleton, self->address);
  mitherm_dbus_device1_set_rssi (self->skeleton, RSSI_UNKNOWN);
  mitherm_dbus_device1_set_adapter (self->skeleton, "");
  mitherm_dbus_device1_set_job (self->skeleton, "/");
  g_signal_connect (self->skeleton, "handle-activate", G_CALLBACK (on_activate), self);
  g_signal_connect (self->skeleton, "handle-login", G_CALLBACK (on_login), self);
  g_signal_connect (self->skeleton, "handle-update", G_CALLBACK (on_update), self);
  g_signal_connect (self->skeleton, "handle-read-info", G_CALLBACK (on_read_info), self);
  g_signal_connect (self->skeleton, "handle-forget", G_CALLBACK (on_forget), self);
  self->object = g_dbus_object_skeleton_new (self->path);
  g_dbus_object_skeleton_add_interface (self->object, G_DBUS_INTERFACE_SKELETON (self->skeleton));
}

static char *
make_path (const char *address)
{
  char *path = g_strconcat (MITHERM_DEVICE_PATH_PREFIX, address, NULL);

  return g_strdelimit (path, ":", '_');
}

MithermDevice *
mitherm_device_new (MithermManager *manager, const char *address)
{
  MithermDevice *self = g_object_new (MITHERM_TYPE_DEVICE, NULL);
  const MithermRecord *record = mitherm_store_lookup (mitherm_manager_get_store (manager), address);

  self->manager = manager;
  g_strlcpy (self->address, address, sizeof self->address);
  self->path = make_path (address);
  if (record != NULL)
    mitherm_facts_copy (&record->facts, &self->facts);
  make_skeleton (self);
  show_facts (self);
  mitherm_dbus_device1_set_has_keys (self->skeleton, mitherm_record_has_keys (record));
  return self;
}

void
mitherm_device_retire (MithermDevice *self)
{
  g_signal_handlers_disconnect_by_data (self->skeleton, self);
}

/* Advertisements */

static void
choose_adapter (MithermDevice *self, const MithermAdvert *advert)
{
  const char *adapter = g_intern_string (advert->adapter);

  if (adapter == self->adapter || self->adapter == NULL
      || self->heard_us - self->adapter_heard_us > ADAPTER_SILENCE_US
      || (advert->rssi != RSSI_UNKNOWN && advert->rssi > self->rssi + ADAPTER_MARGIN_DB))
    {
      self->adapter = adapter;
      self->adapter_heard_us = self->heard_us;
      if (advert->rssi != RSSI_UNKNOWN)
        self->rssi = advert->rssi;
    }
}

static gboolean
replace_text (char **own, const char *text)
{
  if (text == NULL || *text == '\0' || g_strcmp0 (*own, text) == 0)
    return FALSE;
  g_free (*own);
  *own = g_strdup (text);
  return TRUE;
}

/* Names come from strangers: no control characters, not endless. */
static char *
clean_name (const char *name)
{
  g_autofree char *valid = g_utf8_make_valid (name, -1);
  GString *clean = g_string_new (NULL);

  for (const char *at = valid; *at != '\0' && clean->len < NAME_MAX_LEN; at = g_utf8_next_char (at))
    {
      gunichar c = g_utf8_get_char (at);

      if (g_unichar_isprint (c))
        g_string_append_unichar (clean, c);
    }
  return g_string_free (clean, FALSE);
}

static gboolean
take_name (MithermDevice *self, const char *name)
{
  g_autofree char *clean = NULL;

  if (name == NULL || *name == '\0' || g_strcmp0 (name, self->facts.name) == 0)
    return FALSE;
  clean = clean_name (name);
  return replace_text (&self->facts.name, clean);
}

/* What the device itself answered (2A24) outranks what it advertises. */
static gboolean
take_model (MithermDevice *self, const MiAdvertIdentity *identity)
{
  MiModels *models = mitherm_manager_get_models (self->manager);
  const MiModel *model = NULL;

  if (self->facts.info_us != 0 && self->model != NULL)
    return FALSE;
  if (identity->product_id != 0)
    model = mi_models_find_by_product_id (models, identity->product_id);
  if (model == NULL && self->facts.name != NULL && self->facts.product_id == 0)
    model = mi_models_find_by_name (models, self->facts.name);
  if (model != NULL && self->model != NULL && self->facts.product_id != 0
      && mi_model_has_product_id (self->model, self->facts.product_id))
    return FALSE;
  if (model != NULL)
    return replace_text (&self->facts.model, mi_model_get_name (model));
  if (self->facts.model == NULL)
    return replace_text (&self->facts.model, identity->model);
  return FALSE;
}

void
mitherm_device_heard (MithermDevice *self, const MithermAdvert *advert,
                      const MiAdvertIdentity *identity)
{
  gboolean changed = take_name (self, advert->name);

  self->heard_us = g_get_monotonic_time ();
  self->seen_us = g_get_real_time ();
  choose_adapter (self, advert);
  if (identity->format != MI_ADVERT_FORMAT_NONE)
    self->custom = identity->custom_firmware;
  if (identity->product_id != 0 && identity->product_id != self->facts.product_id)
    {
      self->facts.product_id = identity->product_id;
      changed = TRUE;
    }
  changed |= take_model (self, identity);
  if (changed)
    {
      show_facts (self);
      save_facts (self);
    }
  if (self->listener != NULL)
    self->listener (self, advert, self->listener_data);
}

void
mitherm_device_flush (MithermDevice *self)
{
  self->dirty = FALSE;
  mitherm_dbus_device1_set_rssi (self->skeleton, self->rssi);
  mitherm_dbus_device1_set_last_seen (self->skeleton, (guint64) self->seen_us);
  mitherm_dbus_device1_set_adapter (self->skeleton, self->adapter != NULL ? self->adapter : "");
}

/* Facts from jobs */

void
mitherm_device_set_facts (MithermDevice *self, const MithermFacts *news)
{
  replace_text (&self->facts.model, news->model);
  replace_text (&self->facts.hardware, news->hardware);
  replace_text (&self->facts.firmware, news->firmware);
  if (news->info_us != 0)
    self->facts.info_us = news->info_us;
  show_facts (self);
  save_facts (self);
}

void
mitherm_device_set_bound (MithermDevice *self, MithermBound bound)
{
  self->facts.bound = bound;
  show_facts (self);
  save_facts (self);
}

void
mitherm_device_set_auth_version (MithermDevice *self, guint version)
{
  self->facts.auth_version = version;
  show_facts (self);
  save_facts (self);
}

void
mitherm_device_set_job (MithermDevice *self, MithermJob *job)
{
  self->job = job;
  mitherm_dbus_device1_set_job (self->skeleton, job != NULL ? mitherm_job_get_path (job) : "/");
  g_dbus_interface_skeleton_flush (G_DBUS_INTERFACE_SKELETON (self->skeleton));
}

MithermJob *
mitherm_device_get_job (MithermDevice *self)
{
  return self->job;
}

void
mitherm_device_set_listener (MithermDevice *self, MithermDeviceAdvertFunc func, gpointer user_data)
{
  self->listener = func;
  self->listener_data = user_data;
}

/* Getters */

const char *
mitherm_device_get_address (MithermDevice *self)
{
  return self->address;
}

const char *
mitherm_device_get_path (MithermDevice *self)
{
  return self->path;
}

MithermManager *
mitherm_device_get_manager (MithermDevice *self)
{
  return self->manager;
}

GDBusObjectSkeleton *
mitherm_device_get_object (MithermDevice *self)
{
  return self->object;
}

gint64
mitherm_device_get_heard_us (MithermDevice *self)
{
  return self->heard_us;
}

const MithermFacts *
mitherm_device_get_facts (MithermDevice *self)
{
  return &self->facts;
}

const MiModel *
mitherm_device_get_model (MithermDevice *self)
{
  return self->model;
}

const char *
mitherm_device_get_adapter (MithermDevice *self)
{
  return self->adapter;
}

gboolean
mitherm_device_is_custom (MithermDevice *self)
{
  return self->custom;
}

MiSigned
mitherm_device_get_signed (MithermDevice *self)
{
  return mi_models_get_signed (mitherm_manager_get_models (self->manager), self->model,
                               self->facts.firmware);
}

const MithermRecord *
mitherm_device_get_record (MithermDevice *self)
{
  return mitherm_store_lookup (mitherm_manager_get_store (self->manager), self->address);
}

gboolean
mitherm_device_has_keys (MithermDevice *self)
{
  return mitherm_record_has_keys (mitherm_device_get_record (self));
}

GList *
mitherm_device_get_link (MithermDevice *self)
{
  return &self->link;
}

gboolean
mitherm_device_is_dirty (MithermDevice *self)
{
  return self->dirty;
}

void
mitherm_device_set_dirty (MithermDevice *self, gboolean dirty)
{
  self->dirty = dirty;
}
