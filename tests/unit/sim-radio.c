/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "sim-radio.h"

#include <string.h>

#include "mi-crypto.h"
#include "mitherm-error.h"

#define CONNECT_MS       5
#define CONNECT_TRIES_MS 10000
#define ATT_PAYLOAD      20
/* A machine that is busy with other things stops us, but not the thermometers' time: of a longer
 * pause only this counts. While they have something to do they are looked at more often. */
#define STALL_US (30 * 1000)
#define TICK_MS  10

/* One thermometer and the link to it, if there is one. */
typedef struct
{
  SimRadioMock *radio;
  SimDevice *device;
  GObject *link; /* not owned */
  guint timer;
  guint n_connects;
} Peer;

struct _SimRadioMock
{
  GObject parent_instance;

  GHashTable *peers;
  char **adapters;
  gboolean deaf;
  gboolean discovering;
  guint n_up;
  guint peak;
  gint64 seen_us;   /* the clock, when last looked at */
  gint64 passed_us; /* since the start, without stalls */
  MithermAdvertFunc advert;
  MithermRadioChangedFunc changed;
  gpointer user_data;
};

#define SIM_TYPE_LINK (sim_link_get_type ())
G_DECLARE_FINAL_TYPE (SimLink, sim_link, SIM, LINK, GObject)

struct _SimLink
{
  GObject parent_instance;

  Peer *peer; /* NULL: closed */
  guint close_source;
  MiLinkNotifyFunc notify;
  MiLinkClosedFunc closed;
  gpointer user_data;
};

static void sim_link_iface_init (MiLinkInterface *iface);
static void sim_radio_iface_init (MithermRadioInterface *iface);
static void pump (Peer *peer);

G_DEFINE_FINAL_TYPE_WITH_CODE (SimLink, sim_link, G_TYPE_OBJECT,
                               G_IMPLEMENT_INTERFACE (MI_TYPE_LINK, sim_link_iface_init))
G_DEFINE_FINAL_TYPE_WITH_CODE (SimRadioMock, sim_radio_mock, G_TYPE_OBJECT,
                               G_IMPLEMENT_INTERFACE (MITHERM_TYPE_RADIO, sim_radio_iface_init))

static gint64
now_ms (SimRadioMock *self)
{
  gint64 now_us = g_get_monotonic_time ();

  self->passed_us += MIN (now_us - self->seen_us, STALL_US);
  self->seen_us = now_us;
  return self->passed_us * SIM_RADIO_SPEED / 1000;
}

/* The link */

static void
close_link (SimLink *self)
{
  Peer *peer = self->peer;

  if (peer == NULL)
    return;
  self->peer = NULL;
  peer->link = NULL;
  peer->radio->n_up--;
  if (self->closed != NULL)
    self->closed (MI_LINK (self), self->user_data);
}

static gboolean
on_tick (gpointer user_data)
{
  Peer *peer = user_data;

  peer->timer = 0;
  sim_device_tick (peer->device, now_ms (peer->radio));
  pump (peer);
  return G_SOURCE_REMOVE;
}

static void
pump_soon (Peer *peer, gint64 virtual_ms)
{
  g_clear_handle_id (&peer->timer, g_source_remove);
  peer->timer
      = g_timeout_add ((guint) CLAMP (virtual_ms / SIM_RADIO_SPEED, 0, TICK_MS), on_tick, peer);
}

static void
deliver (Peer *peer, const SimOutput *output)
{
  /* The host may drop it in its callback. */
  g_autoptr (GObject) kept = peer->link != NULL ? g_object_ref (peer->link) : NULL;
  SimLink *link = kept != NULL ? SIM_LINK (kept) : NULL;

  if (link != NULL && output->kind == SIM_OUTPUT_NOTIFY && link->notify != NULL)
    {
      g_autofree guint8 *data = g_memdup2 (output->data, output->len);

      link->notify (MI_LINK (link), output->channel, data, output->len, link->user_data);
    }
  else if (link != NULL && output->kind == SIM_OUTPUT_DISCONNECTED)
    close_link (link);
}

static void
pump (Peer *peer)
{
  SimOutput output;
  gint64 deadline;

  while (sim_device_pop (peer->device, &output))
    deliver (peer, &output);
  deadline = sim_device_deadline (peer->device);
  if (peer->timer == 0 && deadline >= 0)
    pump_soon (peer, deadline - now_ms (peer->radio));
}

static MiLinkFlags
link_get_flags (MiLink *link, guint16 channel)
{
  SimLink *self = SIM_LINK (link);
  const SimCharacteristic *table;
  guint n = 0;

  if (self->peer == NULL)
    return 0;
  table = sim_device_get_gatt (self->peer->device, &n);
  for (guint i = 0; i < n; i++)
    {
      if (table[i].channel == channel)
        return table[i].flags;
    }
  return 0;
}

static guint16
link_get_att_payload (MiLink *link)
{
  return ATT_PAYLOAD;
}

static gboolean
link_write (MiLink *link, guint16 channel, const guint8 *data, gsize len, GError **error)
{
  SimLink *self = SIM_LINK (link);
  g_autoptr (GError) rejected = NULL;

  if (self->peer == NULL)
    {
      g_set_error_literal (error, MI_ERROR, MI_ERROR_LINK_LOST, "the link is down");
      return FALSE;
    }
  /* Without response: what the device rejects is lost without a word. */
  sim_device_write (self->peer->device, now_ms (self->peer->radio), channel, data, len, &rejected);
  pump_soon (self->peer, 0);
  return TRUE;
}

static void
link_write_request_async (MiLink *link, guint16 channel, const guint8 *data, gsize len,
                          GCancellable *cancellable, GAsyncReadyCallback callback,
                          gpointer user_data)
{
  g_autoptr (GTask) task = g_task_new (link, cancellable, callback, user_data);
  GError *error = NULL;

  if (link_write (link, channel, data, len, &error))
    g_task_return_boolean (task, TRUE);
  else
    g_task_return_error (task, error);
}

static gboolean
link_write_request_finish (MiLink *link, GAsyncResult *result, GError **error)
{
  return g_task_propagate_boolean (G_TASK (result), error);
}

static void
link_read_async (MiLink *link, guint16 channel, GCancellable *cancellable,
                 GAsyncReadyCallback callback, gpointer user_data)
{
  SimLink *self = SIM_LINK (link);
  g_autoptr (GTask) task = g_task_new (link, cancellable, callback, user_data);
  guint8 value[SIM_PACKET_MAX];
  gsize len = 0;
  GError *error = NULL;

  if (self->peer == NULL)
    g_task_return_new_error (task, MI_ERROR, MI_ERROR_LINK_LOST, "the link is down");
  else if (!sim_device_read (self->peer->device, now_ms (self->peer->radio), channel, value, &len,
                             &error))
    g_task_return_error (task, error);
  else
    g_task_return_pointer (task, g_bytes_new (value, len), (GDestroyNotify) g_bytes_unref);
  if (self->peer != NULL)
    pump_soon (self->peer, 0);
}

static GBytes *
link_read_finish (MiLink *link, GAsyncResult *result, GError **error)
{
  return g_task_propagate_pointer (G_TASK (result), error);
}

static void
link_subscribe_async (MiLink *link, guint16 channel, GCancellable *cancellable,
                      GAsyncReadyCallback callback, gpointer user_data)
{
  g_autoptr (GTask) task = g_task_new (link, cancellable, callback, user_data);

  g_task_return_boolean (task, TRUE);
}

static gboolean
link_subscribe_finish (MiLink *link, GAsyncResult *result, GError **error)
{
  return g_task_propagate_boolean (G_TASK (result), error);
}

static void
link_set_callbacks (MiLink *link, MiLinkNotifyFunc notify, MiLinkClosedFunc closed,
                    gpointer user_data)
{
  SimLink *self = SIM_LINK (link);

  self->notify = notify;
  self->closed = closed;
  self->user_data = user_data;
}

static gboolean
on_close (gpointer user_data)
{
  SimLink *self = user_data;

  self->close_source = 0;
  if (self->peer != NULL)
    {
      Peer *peer = self->peer;

      sim_device_disconnect (peer->device, now_ms (peer->radio));
      close_link (self);
      pump_soon (peer, 0);
    }
  g_object_unref (self);
  return G_SOURCE_REMOVE;
}

static void
link_disconnect (MiLink *link)
{
  SimLink *self = SIM_LINK (link);

  if (self->peer != NULL && self->close_source == 0)
    self->close_source = g_timeout_add (CONNECT_MS, on_close, g_object_ref (self));
}

static gboolean
link_is_closed (MiLink *link)
{
  return SIM_LINK (link)->peer == NULL;
}

static void
sim_link_iface_init (MiLinkInterface *iface)
{
  iface->get_flags = link_get_flags;
  iface->get_att_payload = link_get_att_payload;
  iface->write = link_write;
  iface->write_request_async = link_write_request_async;
  iface->write_request_finish = link_write_request_finish;
  iface->read_async = link_read_async;
  iface->read_finish = link_read_finish;
  iface->subscribe_async = link_subscribe_async;
  iface->subscribe_finish = link_subscribe_finish;
  iface->set_callbacks = link_set_callbacks;
  iface->disconnect = link_disconnect;
  iface->is_closed = link_is_closed;
}

static void
sim_link_finalize (GObject *object)
{
  SimLink *self = SIM_LINK (object);

  if (self->peer != NULL)
    {
      sim_device_disconnect (self->peer->device, now_ms (self->peer->radio));
      self->peer->link = NULL;
      self->peer->radio->n_up--;
    }
  G_OBJECT_CLASS (sim_link_parent_class)->finalize (object);
}

static void
sim_link_class_init (SimLinkClass *klass)
{
  G_OBJECT_CLASS (klass)->finalize = sim_link_finalize;
}

static void
sim_link_init (SimLink *self)
{
}

/* Connecting: tries until it works, as the real radio does */

typedef struct
{
  Peer *peer;
  MithermConnectStepFunc step;
  gpointer step_data;
  gint64 until_us;
  SimLink *link;
} Connect;

static gboolean
on_resolved (gpointer user_data)
{
  g_autoptr (GTask) task = user_data;
  Connect *connect = g_task_get_task_data (task);

  if (!g_task_return_error_if_cancelled (task))
    g_task_return_pointer (task, g_steal_pointer (&connect->link), g_object_unref);
  g_clear_object (&connect->link);
  return G_SOURCE_REMOVE;
}

static gboolean
try_connect (gpointer user_data)
{
  g_autoptr (GTask) task = user_data;
  Connect *connect = g_task_get_task_data (task);
  Peer *peer = connect->peer;
  g_autoptr (GError) error = NULL;
  SimLink *link;

  if (g_task_return_error_if_cancelled (task))
    return G_SOURCE_REMOVE;
  sim_device_tick (peer->device, now_ms (peer->radio));
  if (peer->radio->deaf || peer->link != NULL
      || !sim_device_connect (peer->device, now_ms (peer->radio), ATT_PAYLOAD, &error))
    {
      if (!peer->radio->deaf && g_get_monotonic_time () > connect->until_us)
        g_task_return_new_error (task, MITHERM_ERROR, MITHERM_ERROR_LINK_LOST, "no answer");
      else
        g_timeout_add (CONNECT_MS, try_connect, g_steal_pointer (&task));
      return G_SOURCE_REMOVE;
    }
  connect->step ("discovering", connect->step_data);
  link = g_object_new (SIM_TYPE_LINK, NULL);
  link->peer = peer;
  peer->link = G_OBJECT (link);
  peer->n_connects++;
  peer->radio->n_up++;
  peer->radio->peak = MAX (peer->radio->peak, peer->radio->n_up);
  pump_soon (peer, 0);
  connect->link = link;
  g_timeout_add (CONNECT_MS, on_resolved, g_steal_pointer (&task));
  return G_SOURCE_REMOVE;
}

static void
radio_connect_async (MithermRadio *radio, const char *address, const char *adapter,
                     MithermConnectStepFunc step, gpointer step_data, GCancellable *cancellable,
                     GAsyncReadyCallback callback, gpointer user_data)
{
  SimRadioMock *self = SIM_RADIO_MOCK (radio);
  g_autoptr (GTask) task = g_task_new (radio, cancellable, callback, user_data);
  Connect *connect = g_new0 (Connect, 1);

  connect->peer = g_hash_table_lookup (self->peers, address);
  connect->step = step;
  connect->step_data = step_data;
  connect->until_us = g_get_monotonic_time () + CONNECT_TRIES_MS * 1000;
  g_task_set_task_data (task, connect, g_free);
  if (connect->peer == NULL)
    {
      g_task_return_new_error (task, MITHERM_ERROR, MITHERM_ERROR_NOT_FOUND, "nobody is there");
      return;
    }
  step ("connecting", step_data);
  g_timeout_add (CONNECT_MS, try_connect, g_steal_pointer (&task));
}

static MiLink *
radio_connect_finish (MithermRadio *radio, GAsyncResult *result, GError **error)
{
  return g_task_propagate_pointer (G_TASK (result), error);
}

static gboolean
try_settle (gpointer user_data)
{
  GTask *task = user_data;
  Peer *peer = g_task_get_task_data (task);

  if (peer != NULL && peer->link != NULL
      && !g_cancellable_is_cancelled (g_task_get_cancellable (task)))
    return G_SOURCE_CONTINUE;
  g_task_return_boolean (task, TRUE);
  g_object_unref (task);
  return G_SOURCE_REMOVE;
}

static void
radio_settle_async (MithermRadio *radio, const char *address, GCancellable *cancellable,
                    GAsyncReadyCallback callback, gpointer user_data)
{
  GTask *task = g_task_new (radio, cancellable, callback, user_data);

  g_task_set_task_data (task, g_hash_table_lookup (SIM_RADIO_MOCK (radio)->peers, address), NULL);
  g_timeout_add (CONNECT_MS, try_settle, task);
}

static void
radio_forget_async (MithermRadio *radio, const char *address, GCancellable *cancellable,
                    GAsyncReadyCallback callback, gpointer user_data)
{
  g_autoptr (GTask) task = g_task_new (radio, cancellable, callback, user_data);

  g_task_return_boolean (task, TRUE);
}

static gboolean
radio_boolean_finish (MithermRadio *radio, GAsyncResult *result, GError **error)
{
  return g_task_propagate_boolean (G_TASK (result), error);
}

static void
radio_set_callbacks (MithermRadio *radio, MithermAdvertFunc advert, MithermRadioChangedFunc changed,
                     gpointer user_data)
{
  SimRadioMock *self = SIM_RADIO_MOCK (radio);

  self->advert = advert;
  self->changed = changed;
  self->user_data = user_data;
}

static char **
radio_dup_adapters (MithermRadio *radio)
{
  return g_strdupv (SIM_RADIO_MOCK (radio)->adapters);
}

static gboolean
radio_is_discovering (MithermRadio *radio)
{
  return SIM_RADIO_MOCK (radio)->discovering;
}

static void
radio_set_discovery (MithermRadio *radio, gboolean on)
{
  SimRadioMock *self = SIM_RADIO_MOCK (radio);

  self->discovering = on;
  if (self->changed != NULL)
    self->changed (radio, self->user_data);
}

static void
sim_radio_iface_init (MithermRadioInterface *iface)
{
  iface->set_callbacks = radio_set_callbacks;
  iface->dup_adapters = radio_dup_adapters;
  iface->is_discovering = radio_is_discovering;
  iface->set_discovery = radio_set_discovery;
  iface->connect_async = radio_connect_async;
  iface->connect_finish = radio_connect_finish;
  iface->settle_async = radio_settle_async;
  iface->settle_finish = radio_boolean_finish;
  iface->forget_async = radio_forget_async;
  iface->forget_finish = radio_boolean_finish;
}

static void
peer_free (gpointer data)
{
  Peer *peer = data;

  g_clear_handle_id (&peer->timer, g_source_remove);
  g_assert_null (peer->link);
  sim_device_free (peer->device);
  g_free (peer);
}

static void
sim_radio_finalize (GObject *object)
{
  SimRadioMock *self = SIM_RADIO_MOCK (object);

  g_hash_table_unref (self->peers);
  g_strfreev (self->adapters);
  G_OBJECT_CLASS (sim_radio_mock_parent_class)->finalize (object);
}

static void
sim_radio_mock_class_init (SimRadioMockClass *klass)
{
  G_OBJECT_CLASS (klass)->finalize = sim_radio_finalize;
}

static void
sim_radio_mock_init (SimRadioMock *self)
{
  const char *const adapters[] = { "hci0", NULL };

  self->peers = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, peer_free);
  self->adapters = g_strdupv ((char **) adapters);
  self->seen_us = g_get_monotonic_time ();
}

SimRadioMock *
sim_radio_new (const char *devices)
{
  SimRadioMock *self = g_object_new (SIM_TYPE_RADIO_MOCK, NULL);
  g_autoptr (GKeyFile) file = g_key_file_new ();
  g_autoptr (GError) error = NULL;
  g_auto (GStrv) groups = NULL;

  g_key_file_load_from_data (file, devices, strlen (devices), G_KEY_FILE_NONE, &error);
  g_assert_no_error (error);
  groups = g_key_file_get_groups (file, NULL);
  for (char **group = groups; *group != NULL; group++)
    {
      Peer *peer = g_new0 (Peer, 1);

      peer->radio = self;
      peer->device = sim_device_new (file, *group, mi_crypto_random, NULL, &error);
      g_assert_no_error (error);
      g_hash_table_insert (self->peers, g_strdup (*group), peer);
    }
  return self;
}

SimDevice *
sim_radio_get_device (SimRadioMock *self, const char *address)
{
  Peer *peer = g_hash_table_lookup (self->peers, address);

  return peer->device;
}

void
sim_radio_set_adapters (SimRadioMock *self, const char *const *names)
{
  g_strfreev (self->adapters);
  self->adapters = g_strdupv ((char **) names);
}

static void
advertise_one (SimRadioMock *self, const char *address, Peer *peer, const char *adapter)
{
  MithermAdvert advert = { .adapter = adapter, .address = address };
  SimAdvert sim;

  sim_device_tick (peer->device, now_ms (self));
  if (self->advert == NULL || !sim_device_get_advert (peer->device, now_ms (self), &sim))
    return;
  advert.name = sim.name;
  advert.rssi = sim.rssi;
  advert.uuid = sim.uuid;
  advert.data = sim.data;
  advert.len = sim.len;
  self->advert (MITHERM_RADIO (self), &advert, self->user_data);
}

void
sim_radio_advertise (SimRadioMock *self, const char *address, const char *adapter)
{
  GHashTableIter iter;
  gpointer key, peer;

  g_hash_table_iter_init (&iter, self->peers);
  while (g_hash_table_iter_next (&iter, &key, &peer))
    {
      if (address == NULL || g_str_equal (key, address))
        advertise_one (self, key, peer, adapter != NULL ? adapter : self->adapters[0]);
    }
}

guint
sim_radio_count_connects (SimRadioMock *self, const char *address)
{
  return ((Peer *) g_hash_table_lookup (self->peers, address))->n_connects;
}

void
sim_radio_set_deaf (SimRadioMock *self, gboolean deaf)
{
  self->deaf = deaf;
}

guint
sim_radio_get_up (SimRadioMock *self)
{
  return self->n_up;
}

guint
sim_radio_get_peak (SimRadioMock *self)
{
  return self->peak;
}

void
sim_radio_cut (SimRadioMock *self, const char *address)
{
  Peer *peer = g_hash_table_lookup (self->peers, address);

  if (peer->link == NULL)
    return;
  sim_device_disconnect (peer->device, now_ms (self));
  close_link (SIM_LINK (peer->link));
  pump_soon (peer, 0);
}
