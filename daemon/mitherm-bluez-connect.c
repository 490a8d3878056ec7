/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "mitherm-bluez-private.h"

#include "mitherm-bluez-error.h"
#include "mitherm-bluez-gatt.h"
#include "mitherm-error.h"

/*
 * One connect, from the queue to a link. The steps come in this order; a failed attempt gives the
 * adapter back and waits in IDLE for the next one.
 */
typedef enum
{
  STEP_IDLE,    /* waits for an adapter, or for the next attempt */
  STEP_QUEUED,  /* waits for its turn at the adapter */
  STEP_FIND,    /* waits for an advertisement */
  STEP_FORGET,  /* drops services that were cached before an image change */
  STEP_QUIET,   /* waits for the end of our discovery */
  STEP_CONNECT, /* waits for the connection */
  STEP_RESOLVE, /* waits for the services */
  STEP_OBJECTS, /* reads them */
  STEP_DROP,    /* gives up an attempt: waits until bluetoothd has done so */
} Step;

#define ATTEMPTS_MAX 5
#define PAUSE_MIN_MS 250
#define PAUSE_MAX_MS 4000
/* Another client is at work, and has its own pauses. */
#define PAUSE_BUSY_MS 1000
/* How long one attempt, and all of them, listen for a device that bluetoothd does not know. */
#define FIND_LIMIT_MS     10000
#define FIND_ALL_LIMIT_MS 30000
/* One that was heard long ago: connecting right after an advertisement works best. */
#define FIND_KNOWN_LIMIT_MS 3000
#define FRESH_US            (5 * G_USEC_PER_SEC)
#define QUIET_LIMIT_MS      3000
/* bluetoothd itself gives up after 40 s. */
#define CONNECT_LIMIT_MS      22000
#define CONNECT_CALL_LIMIT_MS 60000
#define RESOLVE_LIMIT_MS      20000
#define OBJECTS_LIMIT_MS      15000
#define DROP_LIMIT_MS         5000
/* For bluetoothd, or an adapter, to come back. */
#define ADAPTER_LIMIT_MS 15000

struct _MithermConnect
{
  guint refs;
  MithermBluez *bluez;
  GTask *task; /* NULL: answered, only tidying up */
  char *address;
  char *wanted_adapter; /* nullable */
  MithermConnectStepFunc step_func;
  gpointer step_data;
  gulong cancel_id;
  guint cancel_idle;

  Step step;
  guint serial; /* counts steps: replies of earlier ones are ignored */
  guint timer_id;
  MithermAdapter *adapter; /* in whose queue, or turn, this is */
  char *path;
  guint attempts;
  gint64 absent_until_us, find_until_us; /* 0: not begun */
  GError *last_error;
  MithermBluezVerdict last_verdict;
};

static void pick_adapter (MithermConnect *self);
static void find (MithermConnect *self);
static void connect_device (MithermConnect *self);
static gboolean on_timer (gpointer user_data);

static MithermConnect *
connect_ref (MithermConnect *self)
{
  self->refs++;
  return self;
}

void
mitherm_connect_unref (MithermConnect *self)
{
  if (--self->refs > 0)
    return;
  g_clear_handle_id (&self->timer_id, g_source_remove);
  g_clear_handle_id (&self->cancel_idle, g_source_remove);
  g_clear_error (&self->last_error);
  g_clear_object (&self->task);
  g_free (self->address);
  g_free (self->wanted_adapter);
  g_free (self->path);
  g_object_unref (self->bluez);
  g_free (self);
}

/* -- Steps, limits, calls ------------------------------------------------------------------- */

static void
enter (MithermConnect *self, Step step, guint limit_ms)
{
  self->step = step;
  self->serial++;
  g_clear_handle_id (&self->timer_id, g_source_remove);
  if (limit_ms > 0)
    self->timer_id = g_timeout_add (limit_ms, on_timer, self);
  if (self->adapter == NULL || self->adapter->current != self)
    return;
  self->adapter->scan = step == STEP_FIND;
  self->adapter->quiet = step >= STEP_QUIET && step <= STEP_OBJECTS;
  mitherm_discovery_update (self->adapter);
}

typedef void (*ReplyFunc) (MithermConnect *self, GVariant *reply, GError *error);

typedef struct
{
  MithermConnect *connect;
  guint serial;
  ReplyFunc func;
} Call;

static void
on_reply (GObject *source, GAsyncResult *result, gpointer user_data)
{
  g_autofree Call *call = user_data;
  g_autoptr (GError) error = NULL;
  g_autoptr (GVariant) reply
      = g_dbus_connection_call_finish (G_DBUS_CONNECTION (source), result, &error);

  if (call->serial == call->connect->serial)
    call->func (call->connect, reply, error);
  mitherm_connect_unref (call->connect);
}

static void
call_bluez (MithermConnect *self, const char *path, const char *interface, const char *method,
            GVariant *arguments, int limit_ms, ReplyFunc func)
{
  Call *call = g_new0 (Call, 1);

  call->connect = connect_ref (self);
  call->serial = self->serial;
  call->func = func;
  g_dbus_connection_call (self->bluez->bus, self->bluez->owner, path, interface, method, arguments,
                          NULL, G_DBUS_CALL_FLAGS_NO_AUTO_START, limit_ms, NULL, on_reply, call);
}

static void
tell_step (MithermConnect *self, const char *step)
{
  if (self->task != NULL && self->step_func != NULL)
    self->step_func (step, self->step_data);
}

/* -- The end of a connect, and of an attempt ------------------------------------------------ */

/* Gives the adapter, or the place in its queue, to others. */
static void
leave_adapter (MithermConnect *self)
{
  MithermAdapter *adapter = g_steal_pointer (&self->adapter);

  if (adapter == NULL)
    return;
  g_queue_remove (&adapter->waiting, self);
  if (adapter->current != self)
    return;
  adapter->current = NULL;
  adapter->scan = FALSE;
  adapter->quiet = FALSE;
  mitherm_connect_next (adapter);
  mitherm_discovery_update (adapter);
}

static GTask *
steal_task (MithermConnect *self)
{
  GTask *task = g_steal_pointer (&self->task);

  if (task != NULL && self->cancel_id != 0)
    g_cancellable_disconnect (g_task_get_cancellable (task), self->cancel_id);
  self->cancel_id = 0;
  g_clear_handle_id (&self->cancel_idle, g_source_remove);
  return task;
}

/* Nothing is under way any more. */
static void
end (MithermConnect *self)
{
  g_clear_handle_id (&self->timer_id, g_source_remove);
  self->serial++;
  leave_adapter (self);
  g_ptr_array_remove (self->bluez->connects, self);
}

static void
finish_error (MithermConnect *self, GError *error)
{
  g_autoptr (GTask) task = steal_task (self);

  connect_ref (self);
  end (self);
  g_task_return_error (task, error);
  mitherm_connect_unref (self);
}

static void
give_up (MithermConnect *self)
{
  g_autoptr (GError) error = mitherm_error_translate (self->last_error);

  /* "Protocol" stands for what the table does not know: for a user it is a lost link. */
  if (error->code == MITHERM_ERROR_PROTOCOL)
    error->code = MITHERM_ERROR_LINK_LOST;
  finish_error (self, g_error_new (error->domain, error->code, "cannot connect to %s: %s (%u %s)",
                                   self->address, error->message, self->attempts,
                                   self->attempts == 1 ? "attempt" : "attempts"));
}

static void
attempt_over (MithermConnect *self)
{
  guint pause_ms = MIN (PAUSE_MIN_MS << (MAX (self->attempts, 1) - 1), PAUSE_MAX_MS);

  if (self->task == NULL)
    end (self);
  else if (self->last_verdict == MITHERM_BLUEZ_FATAL || self->attempts >= ATTEMPTS_MAX)
    give_up (self);
  else
    {
      g_debug ("%s: attempt %u: %s", self->address, self->attempts, self->last_error->message);
      if (self->last_verdict == MITHERM_BLUEZ_BUSY)
        pause_ms = MAX (pause_ms, PAUSE_BUSY_MS);
      leave_adapter (self);
      self->absent_until_us = 0;
      enter (self, STEP_IDLE, pause_ms);
    }
}

/* @error: (transfer none) */
static void
set_last_error (MithermConnect *self, const GError *error)
{
  g_clear_error (&self->last_error);
  self->last_error = g_error_copy (error);
  if (error->domain == MITHERM_ERROR)
    self->last_verdict = MITHERM_BLUEZ_TRANSIENT;
  else
    self->last_verdict = mitherm_bluez_error_classify (error, NULL);
}

static void
fail_attempt (MithermConnect *self, const GError *error)
{
  set_last_error (self, error);
  attempt_over (self);
}

static void
on_dropped (MithermConnect *self, GVariant *reply, GError *error)
{
  attempt_over (self);
}

/* Ends what bluetoothd is doing for us; until it has, nobody else gets the adapter. */
static void
drop (MithermConnect *self)
{
  enter (self, STEP_DROP, DROP_LIMIT_MS);
  call_bluez (self, self->path, BLUEZ_DEVICE_IFACE, "Disconnect", NULL, DROP_LIMIT_MS, on_dropped);
}

static void
drop_attempt (MithermConnect *self, MithermError code, const char *message)
{
  g_autoptr (GError) error = g_error_new_literal (MITHERM_ERROR, (int) code, message);

  set_last_error (self, error);
  drop (self);
}

/* -- Adapter and turn ----------------------------------------------------------------------- */

/* The one that hears the device best, or any that could look for it. */
static MithermAdapter *
choose_adapter (MithermConnect *self)
{
  MithermAdapter *best = NULL;
  gint64 best_score = G_MININT64;

  for (guint i = 0; i < self->bluez->adapters->len; i++)
    {
      MithermAdapter *adapter = self->bluez->adapters->pdata[i];
      g_autofree char *path = mitherm_bluez_peer_path (adapter, self->address);
      MithermPeer *peer = mitherm_bluez_find_peer (self->bluez, path);
      gint64 score = 0;

      if (!adapter->powered
          || (self->wanted_adapter != NULL && !g_str_equal (self->wanted_adapter, adapter->name)))
        continue;
      if (peer != NULL)
        score = 1000 + (peer->rssi == 127 ? -127 : peer->rssi);
      if (score > best_score)
        {
          best = adapter;
          best_score = score;
        }
    }
  return best;
}

static void
pick_adapter (MithermConnect *self)
{
  gint64 now_us = g_get_monotonic_time ();
  MithermAdapter *adapter = choose_adapter (self);

  if (adapter != NULL)
    {
      self->absent_until_us = 0;
      self->adapter = adapter;
      g_free (self->path);
      self->path = mitherm_bluez_peer_path (adapter, self->address);
      enter (self, STEP_QUEUED, 0);
      g_queue_push_tail (&adapter->waiting, self);
      mitherm_connect_next (adapter);
      return;
    }
  if (self->absent_until_us == 0)
    self->absent_until_us = now_us + ADAPTER_LIMIT_MS * 1000;
  if (now_us < self->absent_until_us)
    enter (self, STEP_IDLE, (guint) ((self->absent_until_us - now_us) / 1000 + 1));
  else
    finish_error (self, g_error_new (MITHERM_ERROR, MITHERM_ERROR_NOT_FOUND,
                                     "cannot connect to %s: no usable Bluetooth adapter%s%s",
                                     self->address, self->wanted_adapter != NULL ? " " : "",
                                     self->wanted_adapter != NULL ? self->wanted_adapter : ""));
}

void
mitherm_connect_next (MithermAdapter *adapter)
{
  /* A connection that is being dropped still occupies the radio. */
  if (adapter->current != NULL || adapter->dropping > 0 || !adapter->powered
      || g_queue_is_empty (&adapter->waiting))
    return;
  adapter->current = g_queue_pop_head (&adapter->waiting);
  tell_step (adapter->current, "connecting");
  find (adapter->current);
}

/* -- Finding the device --------------------------------------------------------------------- */

static void
be_quiet (MithermConnect *self)
{
  enter (self, STEP_QUIET, QUIET_LIMIT_MS);
  if (mitherm_discovery_is_quiet (self->adapter))
    connect_device (self);
}

static void
on_forgotten (MithermConnect *self, GVariant *reply, GError *error)
{
  /* An object that has gone by itself leaves a cache that the next one would find again. */
  if (error != NULL)
    g_debug ("%s: dropping cached services: %s", self->address, error->message);
  else
    g_hash_table_remove (self->bluez->stale, self->address);
  find (self);
}

static void
forget (MithermConnect *self)
{
  enter (self, STEP_FORGET, BLUEZ_CALL_LIMIT_MS);
  call_bluez (self, self->adapter->path, BLUEZ_ADAPTER_IFACE, "RemoveDevice",
              g_variant_new ("(o)", self->path), BLUEZ_CALL_LIMIT_MS, on_forgotten);
}

static gboolean
must_forget (MithermConnect *self, MithermPeer *peer)
{
  return peer != NULL && !peer->connected && !peer->paired && !peer->trusted
         && g_hash_table_contains (self->bluez->stale, self->address);
}

static void
find (MithermConnect *self)
{
  MithermPeer *peer = mitherm_bluez_find_peer (self->bluez, self->path);
  gint64 now_us = g_get_monotonic_time ();
  guint limit_ms = FIND_KNOWN_LIMIT_MS;

  if (self->find_until_us == 0)
    self->find_until_us = now_us + FIND_ALL_LIMIT_MS * 1000;
  if (g_hash_table_contains (self->bluez->links, self->path))
    {
      finish_error (self, g_error_new (MITHERM_ERROR, MITHERM_ERROR_BUSY, "%s is connected already",
                                       self->address));
      return;
    }
  if (must_forget (self, peer))
    {
      forget (self);
      return;
    }
  if (peer != NULL
      && (peer->connected || !self->bluez->discovery_wanted
          || (peer->seen_us != 0 && now_us - peer->seen_us < FRESH_US)))
    {
      be_quiet (self);
      return;
    }
  if (peer == NULL)
    limit_ms = (guint) CLAMP ((self->find_until_us - now_us) / 1000, 1, FIND_LIMIT_MS);
  enter (self, STEP_FIND, limit_ms);
}

static void
on_not_heard (MithermConnect *self)
{
  if (mitherm_bluez_find_peer (self->bluez, self->path) != NULL)
    be_quiet (self);
  else if (g_get_monotonic_time () < self->find_until_us)
    {
      /* Others may have their turn, and another adapter may have heard it. */
      leave_adapter (self);
      pick_adapter (self);
    }
  else
    finish_error (self, g_error_new (MITHERM_ERROR, MITHERM_ERROR_NOT_FOUND,
                                     "%s was not heard within %d s", self->address,
                                     FIND_ALL_LIMIT_MS / 1000));
}

/* -- Connecting ----------------------------------------------------------------------------- */

static void
on_objects (MithermConnect *self, GVariant *reply, GError *error)
{
  g_autoptr (GVariant) objects = NULL;
  g_autoptr (GTask) task = NULL;
  g_autoptr (MithermLink) link = NULL;
  MithermAdapter *adapter = self->adapter;

  if (reply == NULL)
    {
      set_last_error (self, error);
      drop (self);
      return;
    }
  objects = g_variant_get_child_value (reply, 0);
  link = mitherm_bluez_add_link (self->bluez, adapter, self->path,
                                 mitherm_gatt_parse (objects, self->path));
  task = steal_task (self);
  connect_ref (self);
  end (self);
  g_task_return_pointer (task, g_steal_pointer (&link), g_object_unref);
  mitherm_connect_unref (self);
}

static void
check_resolved (MithermConnect *self, MithermPeer *peer)
{
  g_autoptr (GError) error = NULL;

  if (peer == NULL || !peer->connected)
    {
      error = g_error_new_literal (MITHERM_ERROR, MITHERM_ERROR_LINK_LOST,
                                   "the connection dropped before the services were known");
      fail_attempt (self, error);
    }
  else if (peer->resolved)
    {
      enter (self, STEP_OBJECTS, OBJECTS_LIMIT_MS);
      call_bluez (self, "/", "org.freedesktop.DBus.ObjectManager", "GetManagedObjects", NULL,
                  OBJECTS_LIMIT_MS, on_objects);
    }
}

static void
on_properties (MithermConnect *self, GVariant *reply, GError *error)
{
  MithermPeer *peer = mitherm_bluez_find_peer (self->bluez, self->path);
  g_autoptr (GVariant) properties = NULL;

  if (reply == NULL)
    {
      set_last_error (self, error);
      drop (self);
      return;
    }
  properties = g_variant_get_child_value (reply, 0);
  if (peer != NULL)
    mitherm_bluez_peer_update (self->bluez, peer, properties, FALSE);
  /* That may have moved us on already. */
  if (self->step == STEP_RESOLVE)
    check_resolved (self, peer);
}

static void
on_connected (MithermConnect *self, GVariant *reply, GError *error)
{
  MithermPeer *peer = mitherm_bluez_find_peer (self->bluez, self->path);

  if (reply == NULL && mitherm_bluez_error_classify (error, NULL) != MITHERM_BLUEZ_FINE)
    {
      fail_attempt (self, error);
      return;
    }
  if (peer != NULL)
    peer->connected = TRUE;
  enter (self, STEP_RESOLVE, RESOLVE_LIMIT_MS);
  tell_step (self, "discovering");
  /* Neither Connected nor ServicesResolved need be signalled: they may be true already. */
  call_bluez (self, self->path, "org.freedesktop.DBus.Properties", "GetAll",
              g_variant_new ("(s)", BLUEZ_DEVICE_IFACE), BLUEZ_CALL_LIMIT_MS, on_properties);
}

static void
connect_device (MithermConnect *self)
{
  self->attempts++;
  enter (self, STEP_CONNECT, CONNECT_LIMIT_MS);
  call_bluez (self, self->path, BLUEZ_DEVICE_IFACE, "Connect", NULL, CONNECT_CALL_LIMIT_MS,
              on_connected);
}

/* -- What comes from outside ---------------------------------------------------------------- */

static gboolean
on_timer (gpointer user_data)
{
  MithermConnect *self = user_data;

  self->timer_id = 0;
  switch (self->step)
    {
    case STEP_IDLE:
      pick_adapter (self);
      break;
    case STEP_QUEUED:
      break;
    case STEP_FIND:
      on_not_heard (self);
      break;
    case STEP_FORGET:
      be_quiet (self);
      break;
    case STEP_QUIET:
      /* A discovery that does not end does not prevent the connection. */
      connect_device (self);
      break;
    case STEP_CONNECT:
      drop_attempt (self, MITHERM_ERROR_TIMEOUT, "no connection within 22 s");
      break;
    case STEP_RESOLVE:
      drop_attempt (self, MITHERM_ERROR_TIMEOUT, "no services within 20 s");
      break;
    case STEP_OBJECTS:
      drop_attempt (self, MITHERM_ERROR_TIMEOUT, "bluetoothd does not answer");
      break;
    case STEP_DROP:
      attempt_over (self);
      break;
    }
  return G_SOURCE_REMOVE;
}

void
mitherm_connect_on_peer (MithermPeer *peer, gboolean heard)
{
  MithermConnect *self = peer->adapter->current;

  if (self == NULL || !g_str_equal (self->path, peer->path))
    return;
  if (self->step == STEP_FIND && heard)
    find (self);
  else if (self->step == STEP_RESOLVE)
    check_resolved (self, peer);
  else if (self->step == STEP_OBJECTS && !peer->connected)
    check_resolved (self, peer);
}

void
mitherm_connect_on_quiet (MithermAdapter *adapter)
{
  if (adapter->current != NULL && adapter->current->step == STEP_QUIET
      && mitherm_discovery_is_quiet (adapter))
    connect_device (adapter->current);
}

void
mitherm_connect_on_adapter_gone (MithermAdapter *adapter)
{
  g_autoptr (GError) error = g_error_new_literal (
      MITHERM_ERROR, MITHERM_ERROR_LINK_LOST, "the Bluetooth adapter was switched off or has gone");
  MithermConnect *self = NULL;

  /* The power is off, so nobody gets the adapter meanwhile. */
  if (adapter->current != NULL)
    fail_attempt (adapter->current, error);
  while ((self = g_queue_peek_head (&adapter->waiting)) != NULL)
    {
      leave_adapter (self);
      pick_adapter (self);
    }
}

void
mitherm_connect_on_adapter_usable (MithermBluez *bluez)
{
  g_autoptr (GPtrArray) absent = g_ptr_array_new ();

  for (guint i = 0; i < bluez->connects->len; i++)
    {
      MithermConnect *self = bluez->connects->pdata[i];

      if (self->step == STEP_IDLE && self->absent_until_us != 0)
        g_ptr_array_add (absent, self);
    }
  for (guint i = 0; i < absent->len; i++)
    pick_adapter (absent->pdata[i]);
}

static gboolean
on_cancel_idle (gpointer user_data)
{
  MithermConnect *self = user_data;
  g_autoptr (GTask) task = NULL;

  self->cancel_idle = 0;
  task = steal_task (self);
  connect_ref (self);
  /* The caller goes on at once; what bluetoothd is doing for us has to end before the next. */
  if (self->step >= STEP_CONNECT && self->step <= STEP_OBJECTS)
    drop (self);
  else if (self->step != STEP_DROP)
    end (self);
  g_task_return_new_error (task, G_IO_ERROR, G_IO_ERROR_CANCELLED, "connecting was cancelled");
  mitherm_connect_unref (self);
  return G_SOURCE_REMOVE;
}

/* From inside of anything, perhaps from inside of one of our callbacks. */
static void
on_cancelled (GCancellable *cancellable, gpointer user_data)
{
  MithermConnect *self = user_data;

  if (self->cancel_idle == 0)
    self->cancel_idle = g_idle_add_full (G_PRIORITY_DEFAULT, on_cancel_idle, self, NULL);
}

void
mitherm_connect_start (MithermBluez *bluez, const char *address, const char *adapter,
                       MithermConnectStepFunc step, gpointer step_data, GTask *task)
{
  MithermConnect *self = g_new0 (MithermConnect, 1);
  GCancellable *cancellable = g_task_get_cancellable (task);

  self->refs = 1;
  self->bluez = g_object_ref (bluez);
  self->task = task;
  self->address = g_ascii_strup (address, -1);
  self->wanted_adapter = g_strdup (adapter);
  self->step_func = step;
  self->step_data = step_data;
  g_ptr_array_add (bluez->connects, self);
  if (cancellable != NULL)
    self->cancel_id = g_cancellable_connect (cancellable, G_CALLBACK (on_cancelled), self, NULL);
  if (self->cancel_idle == 0)
    pick_adapter (self);
}
