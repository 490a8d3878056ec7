/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "mitherm-device.h"

#include <string.h>
#include <unistd.h>

#include "mitherm-catalog.h"
#include "mitherm-dbus.h"
#include "mitherm-error.h"
#include "mitherm-file.h"
#include "mitherm-job.h"
#include "mitherm-log.h"
#include "mitherm-options.h"
#include "mitherm-properties.h"
#include "mitherm-sensor.h"

#define RSSI_UNKNOWN 127
/* Another adapter takes over when it hears this much better, or the old one hears nothing. */
#define ADAPTER_MARGIN_DB  6
#define ADAPTER_SILENCE_US (30 * G_USEC_PER_SEC)
/* Of a sensor, whose values tell as much, Rssi and LastSeen are signalled this seldom. */
#define SEEN_SIGNAL_US (5 * G_USEC_PER_SEC)
/* What the air says of a thermometer, anybody can say: it is saved this seldom. */
#define SAVE_HEARD_US (G_TIME_SPAN_HOUR)
#define NAME_MAX_LEN  64
#define HOPS_MAX      8

struct _MithermDevice
{
  GObject parent_instance;

  MithermManager *manager; /* not owned: it owns its devices */
  char address[18];
  gboolean custom;
  gint16 rssi;
  gboolean on_bus;
  gboolean has_keys;
  gboolean touched;     /* heard since Rssi and LastSeen were signalled */
  gboolean told_values; /* what was signalled last were values */
  gboolean hearing;     /* changes are the air's */
  gboolean unsaved;     /* facts from the air */
  gint16 shown_rssi;
  MiSigned shown_signed;
  guint changed; /* bits of Property that wait to be signalled */
  guint later;   /* the same, with Rssi and LastSeen */
  char *path;
  MithermFacts facts;
  const MiModel *model;
  const char *adapter; /* interned */
  const char *shown_adapter;
  const char *update_version; /* interned, nullable */
  gint64 adapter_heard_us;    /* when that adapter heard it, monotonic */
  gint64 heard_us;            /* monotonic */
  gint64 signalled_us;        /* Rssi and LastSeen, monotonic */
  gint64 seen_us;             /* UTC */
  gint64 saved_us;            /* facts from the air, monotonic, 0: never */
  MithermJob *job;            /* not owned */
  MithermDeviceAdvertFunc listener;
  gpointer listener_data;
  MithermSensor *sensor; /* nullable: heard nothing that may hold values */
  GList heard_link;      /* in the manager's queue by time of hearing */
  GList news_link;       /* in the queue of those with changes to signal */
};

G_DEFINE_FINAL_TYPE (MithermDevice, mitherm_device, G_TYPE_OBJECT)

static void
mitherm_device_finalize (GObject *object)
{
  MithermDevice *self = MITHERM_DEVICE (object);

  mitherm_sensor_free (self->sensor);
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
  self->rssi = self->shown_rssi = RSSI_UNKNOWN;
  self->heard_link.data = self->news_link.data = self;
}

/* Properties of org.mitherm.Device1 */

typedef enum
{
  PROP_ADDRESS,
  PROP_NAME,
  PROP_MODEL,
  PROP_PRODUCT_ID,
  PROP_HARDWARE,
  PROP_FIRMWARE,
  PROP_AUTH_VERSION,
  PROP_BOUND,
  PROP_HAS_KEYS,
  PROP_SIGNED,
  PROP_RSSI,
  PROP_LAST_SEEN,
  PROP_ADAPTER,
  PROP_JOB,
  PROP_UPDATE_VERSION,
  N_PROPERTIES,
} Property;

static const char *const property_names[] = {
  "Address", "Name",   "Model", "ProductId", "Hardware", "Firmware", "AuthVersion",   "Bound",
  "HasKeys", "Signed", "Rssi",  "LastSeen",  "Adapter",  "Job",      "UpdateVersion",
};
G_STATIC_ASSERT (G_N_ELEMENTS (property_names) == N_PROPERTIES);

static GVariant *
text_variant (const char *text)
{
  return g_variant_new_string (text != NULL ? text : "");
}

static GVariant *
get_property (gpointer object, guint property)
{
  MithermDevice *self = object;
  const MithermFacts *facts = &self->facts;

  switch ((Property) property)
    {
    case PROP_ADDRESS:
      return g_variant_new_string (self->address);
    case PROP_NAME:
      return text_variant (facts->name);
    case PROP_MODEL:
      return text_variant (facts->model);
    case PROP_PRODUCT_ID:
      return g_variant_new_uint16 (facts->product_id);
    case PROP_HARDWARE:
      return text_variant (facts->hardware);
    case PROP_FIRMWARE:
      return text_variant (facts->firmware);
    case PROP_AUTH_VERSION:
      return g_variant_new_uint32 (facts->auth_version);
    case PROP_BOUND:
      return g_variant_new_string (mitherm_bound_to_string (facts->bound));
    case PROP_HAS_KEYS:
      return g_variant_new_boolean (self->has_keys);
    case PROP_SIGNED:
      return g_variant_new_string (mi_signed_to_string (self->shown_signed));
    case PROP_RSSI:
      return g_variant_new_int16 (self->rssi);
    case PROP_LAST_SEEN:
      return g_variant_new_uint64 ((guint64) self->seen_us);
    case PROP_ADAPTER:
      return text_variant (self->adapter);
    case PROP_JOB:
      return g_variant_new_object_path (self->job != NULL ? mitherm_job_get_path (self->job) : "/");
    case PROP_UPDATE_VERSION:
      return text_variant (self->update_version);
    case N_PROPERTIES:
    default:
      g_return_val_if_reached (NULL);
    }
}

static const MithermProperties properties = { property_names, N_PROPERTIES, get_property };

GVariant *
mitherm_device_get_property (MithermDevice *self, const char *name, gboolean sensor)
{
  if (sensor)
    return mitherm_sensor_get_property (self->sensor, name);
  return mitherm_properties_get (&properties, self, name);
}

GVariant *
mitherm_device_get_properties (MithermDevice *self, gboolean sensor)
{
  if (sensor)
    return mitherm_sensor_get_properties (self->sensor);
  return mitherm_properties_list (&properties, self, G_MAXUINT);
}

gboolean
mitherm_device_is_sensor (MithermDevice *self)
{
  return self->sensor != NULL && mitherm_sensor_is_shown (self->sensor);
}

static void
emit_properties (MithermDevice *self, const char *interface, GVariant *changed)
{
  static const char *const none[] = { NULL };

  g_dbus_connection_emit_signal (mitherm_manager_get_connection (self->manager), NULL, self->path,
                                 "org.freedesktop.DBus.Properties", "PropertiesChanged",
                                 g_variant_new ("(s@a{sv}^as)", interface, changed, none), NULL);
}

/* One signal for all that has changed; from the main loop, or before a reply that relies on it. */
void
mitherm_device_emit (MithermDevice *self)
{
  guint changed = self->changed;

  self->changed = 0;
  if (changed == 0 || !self->on_bus || mitherm_manager_get_connection (self->manager) == NULL)
    return;
  emit_properties (self, mitherm_dbus_device1_interface_info ()->name,
                   mitherm_properties_list (&properties, self, changed));
}

void
mitherm_device_set_on_bus (MithermDevice *self, gboolean on_bus)
{
  self->on_bus = on_bus;
  self->changed = self->later = 0;
}

static void
mark (MithermDevice *self, Property property)
{
  if (self->hearing)
    {
      self->later |= 1u << property;
      return;
    }
  if (self->changed == 0 && self->on_bus)
    mitherm_manager_emit_soon (self->manager, self);
  self->changed |= 1u << property;
}

/* Model and firmware decide whether a signature is wanted, and what is newer. */
static void
review_signed (MithermDevice *self)
{
  MiSigned state = mi_models_get_signed (mitherm_manager_get_models (self->manager), self->model,
                                         self->facts.firmware);

  if (state != self->shown_signed)
    {
      self->shown_signed = state;
      mark (self, PROP_SIGNED);
    }
  mitherm_device_review_update (self);
}

void
mitherm_device_review_update (MithermDevice *self)
{
  MithermCatalog *catalog = mitherm_manager_get_catalog (self->manager);
  const char *version = catalog != NULL
                            ? mitherm_catalog_get_offer (catalog, self->model, self->facts.hardware,
                                                         self->facts.firmware)
                            : NULL;

  if (version == self->update_version) /* interned */
    return;
  self->update_version = version;
  mark (self, PROP_UPDATE_VERSION);
}

static void
review_model (MithermDevice *self)
{
  const char *model = self->facts.model;

  self->model
      = model != NULL ? mi_models_find (mitherm_manager_get_models (self->manager), model) : NULL;
  review_signed (self);
}

static void
save_facts (MithermDevice *self)
{
  g_autoptr (GError) error = NULL;

  if (!mitherm_store_set_facts (mitherm_manager_get_store (self->manager), self->address,
                                &self->facts, &error))
    mitherm_log_device (G_LOG_LEVEL_WARNING, self->address, "%s", error->message);
  self->unsaved = FALSE;
}

void
mitherm_device_keys_changed (MithermDevice *self)
{
  if (mitherm_device_has_keys (self) != self->has_keys)
    {
      self->has_keys = !self->has_keys;
      mark (self, PROP_HAS_KEYS);
    }
  if (self->sensor != NULL)
    {
      mitherm_sensor_keys_changed (self->sensor);
      mitherm_manager_emit_later (self->manager, self);
    }
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
  mitherm_job_set_caller (job, g_dbus_method_invocation_get_sender (invocation));
  mitherm_device_emit (self);
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
read_handle (GDBusMethodInvocation *invocation, gint handle, GPtrArray *files, GError **error)
{
  GBytes *bytes = mitherm_file_take (invocation, handle, "image", error);

  if (bytes != NULL)
    g_ptr_array_add (files, bytes);
  return bytes != NULL;
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
  g_autoptr (GBytes) wrapping = NULL;
  gint envelope = -1;
  g_auto (GStrv) risks = NULL;
  MithermUpdateOptions wanted = { 0 };
  const MithermOption known[] = {
    { "activate", "b", &wanted.activate },
    { "expect-version", "s", &expect },
    { "accept", "as", &risks },
    { "images", "ah", &more },
    { "window", "u", &wanted.window },
    { "transport", "s", &transport },
    { "envelope", "h", &envelope },
  };
  GError *error = NULL;
  MithermJob *job = NULL;

  if (mitherm_options_parse (options, known, G_N_ELEMENTS (known), &error)
      && parse_risks (risks, &wanted.accept, &error)
      && read_images (invocation, more, files, &error)
      && (envelope < 0
          || (wrapping = mitherm_file_take (invocation, envelope, "envelope", &error)) != NULL))
    {
      wanted.envelope = wrapping;
      wanted.expect_version = expect;
      wanted.transport = transport;
      job = mitherm_job_update_new (self, files, &wanted, &error);
    }
  answer_with_job (self, invocation, job, error);
}

static void
update_from_catalog (GDBusMethodInvocation *invocation, GObject *object)
{
  MithermDevice *self = MITHERM_DEVICE (object);
  g_autoptr (GVariant) options = get_options (invocation, 0);
  g_autoptr (GPtrArray) files = g_ptr_array_new_with_free_func ((GDestroyNotify) g_bytes_unref);
  g_autofree char *version = NULL;
  g_autofree char *transport = NULL;
  g_auto (GStrv) risks = NULL;
  MithermUpdateOptions wanted = { 0 };
  const MithermOption known[] = {
    { "activate", "b", &wanted.activate }, { "accept", "as", &risks },
    { "window", "u", &wanted.window },     { "transport", "s", &transport },
    { "version", "s", &version },
  };
  MithermCatalog *catalog = mitherm_manager_get_catalog (self->manager);
  GError *error = NULL;
  MithermJob *job = NULL;
  GBytes *file = NULL;

  if (mitherm_options_parse (options, known, G_N_ELEMENTS (known), &error)
      && parse_risks (risks, &wanted.accept, &error) && catalog != NULL)
    file = mitherm_catalog_load (catalog, self->model, self->facts.hardware, self->facts.firmware,
                                 version, &error);
  if (file != NULL)
    {
      g_ptr_array_add (files, file);
      wanted.transport = transport;
      job = mitherm_job_update_new (self, files, &wanted, &error);
    }
  else if (error == NULL)
    error = g_error_new_literal (MITHERM_ERROR, MITHERM_ERROR_NOT_FOUND, "There is no catalogue.");
  answer_with_job (self, invocation, job, error);
}

static void
set_clock (GDBusMethodInvocation *invocation, GObject *object)
{
  MithermDevice *self = MITHERM_DEVICE (object);
  g_autoptr (GVariant) options = get_options (invocation, 0);
  g_autofree char *zone = NULL;
  gint64 time_s = -1;
  const MithermOption known[] = { { "time", "x", &time_s }, { "zone", "s", &zone } };
  GError *error = NULL;
  MithermJob *job = NULL;

  if (mitherm_options_parse (options, known, G_N_ELEMENTS (known), &error))
    job = mitherm_job_clock_new (self, time_s, zone, &error);
  answer_with_job (self, invocation, job, error);
}

static void
read_info (GDBusMethodInvocation *invocation, GObject *object)
{
  MithermDevice *self = MITHERM_DEVICE (object);
  GError *error = NULL;
  MithermJob *job = mitherm_job_info_new (self, &error);

  answer_with_job (self, invocation, job, error);
}

gboolean
mitherm_device_check_known (MithermDevice *self, GError **error)
{
  if (mitherm_manager_find_device (self->manager, self->address) == self)
    return TRUE;
  g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_NOT_FOUND,
               "%s has gone while leave was asked for. Try again when it is heard.", self->address);
  return FALSE;
}

static gboolean
do_forget (MithermDevice *self, gboolean purge, GError **error)
{
  const MithermRecord *record = mitherm_device_get_record (self);

  if (!mitherm_device_check_known (self, error))
    return FALSE;
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
  mitherm_device_emit (self);
  g_dbus_method_invocation_return_value (invocation, NULL);
  mitherm_manager_review (self->manager, self);
}

void
mitherm_device_call (MithermDevice *self, const char *method, GDBusMethodInvocation *invocation)
{
  static const struct
  {
    const char *method;
    const char *action; /* NULL: reading changes nothing */
    MithermAuthFunc func;
  } methods[] = {
    { "Activate", "activate", activate },
    { "Login", "login", login },
    { "Update", "update", update },
    { "ReadInfo", NULL, read_info },
    { "Forget", "forget", forget },
    { "SetClock", "configure", set_clock },
    { "UpdateFromCatalog", "update", update_from_catalog },
  };

  for (gsize i = 0; i < G_N_ELEMENTS (methods); i++)
    {
      if (!g_str_equal (methods[i].method, method))
        continue;
      if (methods[i].action == NULL)
        methods[i].func (invocation, G_OBJECT (self));
      else
        mitherm_manager_authorize (self->manager, invocation, methods[i].action, methods[i].func,
                                   G_OBJECT (self));
      return;
    }
  g_dbus_method_invocation_return_error (invocation, G_DBUS_ERROR, G_DBUS_ERROR_UNKNOWN_METHOD,
                                         "No method %s", method);
}

/* Construction */

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
  self->has_keys = mitherm_record_has_keys (record);
  review_model (self);
  self->changed = 0;
  return self;
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
  if (!replace_text (&self->facts.name, clean))
    return FALSE;
  mark (self, PROP_NAME);
  return TRUE;
}

static gboolean
show_model (MithermDevice *self, const char *model)
{
  if (!replace_text (&self->facts.model, model))
    return FALSE;
  mark (self, PROP_MODEL);
  review_model (self);
  return TRUE;
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
    return show_model (self, mi_model_get_name (model));
  if (self->facts.model == NULL)
    return show_model (self, identity->model);
  return FALSE;
}

/* Returns: whether it changes anything that is stored */
static gboolean
take_identity (MithermDevice *self, const MithermAdvert *advert, const MiAdvertIdentity *identity)
{
  gboolean changed = take_name (self, advert->name);

  if (identity->format != MI_ADVERT_FORMAT_NONE)
    self->custom = identity->custom_firmware;
  if (identity->product_id != 0 && identity->product_id != self->facts.product_id)
    {
      self->facts.product_id = identity->product_id;
      mark (self, PROP_PRODUCT_ID);
      changed = TRUE;
    }
  return take_model (self, identity) || changed;
}

void
mitherm_device_heard (MithermDevice *self, const MithermAdvert *advert,
                      const MiAdvertIdentity *identity)
{
  self->heard_us = g_get_monotonic_time ();
  self->seen_us = g_get_real_time ();
  self->touched = TRUE;
  choose_adapter (self, advert);
  self->hearing = TRUE;
  self->unsaved |= take_identity (self, advert, identity);
  self->hearing = FALSE;
  if (self->unsaved && (self->saved_us == 0 || self->heard_us - self->saved_us >= SAVE_HEARD_US))
    {
      self->saved_us = self->heard_us;
      save_facts (self);
    }
  if (self->listener != NULL)
    self->listener (self, advert, self->listener_data);
}

void
mitherm_device_measure (MithermDevice *self, const MithermAdvert *advert)
{
  gboolean was_shown = mitherm_device_is_sensor (self);
  g_autoptr (GVariant) values = NULL;

  if (!mitherm_sensor_has_format (advert->uuid))
    return;
  if (self->sensor == NULL)
    self->sensor = mitherm_sensor_new (self, mitherm_manager_get_watch (self->manager));
  values = mitherm_sensor_heard (self->sensor, advert);
  if (values != NULL)
    g_variant_ref_sink (values);
  if (!self->on_bus || mitherm_manager_get_connection (self->manager) == NULL)
    return;
  if (!was_shown && mitherm_device_is_sensor (self))
    {
      mitherm_manager_show_sensor (self->manager, self);
      g_variant_unref (g_variant_ref_sink (mitherm_sensor_take_changes (self->sensor)));
    }
  if (values != NULL)
    g_dbus_connection_emit_signal (mitherm_manager_get_connection (self->manager), NULL, self->path,
                                   mitherm_dbus_sensor1_interface_info ()->name, "Measurement",
                                   g_variant_new ("(@a{sv})", values), NULL);
}

static gboolean
has_values (MithermDevice *self)
{
  return self->on_bus && mitherm_manager_get_connection (self->manager) != NULL
         && mitherm_device_is_sensor (self) && mitherm_sensor_has_changes (self->sensor);
}

static gboolean
is_seen_due (MithermDevice *self)
{
  return self->touched
         && (self->later != 0 || !mitherm_device_is_sensor (self)
             || self->heard_us - self->signalled_us >= SEEN_SIGNAL_US);
}

static void
mark_seen (MithermDevice *self)
{
  self->touched = FALSE;
  self->signalled_us = self->heard_us;
  mark (self, PROP_LAST_SEEN);
  if (self->rssi != self->shown_rssi)
    mark (self, PROP_RSSI);
  if (self->adapter != self->shown_adapter)
    mark (self, PROP_ADAPTER);
  self->changed |= self->later;
  self->later = 0;
  self->shown_rssi = self->rssi;
  self->shown_adapter = self->adapter;
}

gboolean
mitherm_device_has_news (MithermDevice *self)
{
  return has_values (self) || is_seen_due (self);
}

gboolean
mitherm_device_flush (MithermDevice *self)
{
  gboolean values = has_values (self), seen = is_seen_due (self);

  if (!values && !seen)
    return FALSE;
  /* In turn, so that neither waits for ever. */
  self->told_values = values && !(seen && self->told_values);
  if (self->told_values)
    emit_properties (self, mitherm_dbus_sensor1_interface_info ()->name,
                     mitherm_sensor_take_changes (self->sensor));
  else
    mark_seen (self);
  return TRUE;
}

/* Facts from jobs */

void
mitherm_device_set_facts (MithermDevice *self, const MithermFacts *news)
{
  show_model (self, news->model);
  if (replace_text (&self->facts.hardware, news->hardware))
    mark (self, PROP_HARDWARE);
  if (replace_text (&self->facts.firmware, news->firmware))
    mark (self, PROP_FIRMWARE);
  if (news->info_us != 0)
    self->facts.info_us = news->info_us;
  review_signed (self);
  save_facts (self);
}

void
mitherm_device_set_bound (MithermDevice *self, MithermBound bound)
{
  if (self->facts.bound == bound)
    return;
  self->facts.bound = bound;
  mark (self, PROP_BOUND);
  save_facts (self);
}

void
mitherm_device_set_auth_version (MithermDevice *self, guint version)
{
  if (self->facts.auth_version == version)
    return;
  self->facts.auth_version = version;
  mark (self, PROP_AUTH_VERSION);
  save_facts (self);
}

void
mitherm_device_set_job (MithermDevice *self, MithermJob *job)
{
  self->job = job;
  mark (self, PROP_JOB);
  mitherm_device_emit (self);
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
  return self->shown_signed;
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
mitherm_device_get_heard_link (MithermDevice *self)
{
  return &self->heard_link;
}

GList *
mitherm_device_get_news_link (MithermDevice *self)
{
  return &self->news_link;
}
