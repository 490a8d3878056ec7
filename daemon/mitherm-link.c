/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "mitherm-link.h"

#include "mi-error.h"
#include "mitherm-bluez-error.h"
#include "mitherm-bluez-gatt.h"

#include <gio/gunixfdlist.h>

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHARACTERISTIC_IFACE "org.bluez.GattCharacteristic1"
#define CALL_LIMIT_MS        10000
/* BlueZ gives an unanswered ATT request 30 s and then drops the link. */
#define READ_LIMIT_MS 35000
/* Our subscription of an earlier connection is being renewed: StartNotify says InProgress. */
#define SUBSCRIBE_RETRY_MS  200
#define SUBSCRIBE_RETRY_MAX 25
/* Two bus clients with StartNotify: each packet is signalled twice, back to back. */
#define TWIN_LIMIT_US 5000
/* Packets that wait for the descriptor: more than two windows of the largest size. */
#define RING_SIZE  32768
#define PACKET_MAX 512
/*
 * A read takes the long way, through the bus, and packets written after it overtake it on their
 * way to bluetoothd. Then its answer comes when nothing is left to send, and the radio idles. So
 * they wait for a moment, if the radio is slow enough to be worth it.
 */
#define HOLD_WORTH_US (8 * 1000)
#define HOLD_MIN_US   (1 * 1000)
#define HOLD_MAX_US   (4 * 1000)

typedef enum
{
  BULK_IDLE,       /* nothing written yet */
  BULK_ACQUIRING,  /* AcquireWrite is on its way: packets wait in the ring */
  BULK_DESCRIPTOR, /* packets go to the descriptor */
  BULK_CALLS,      /* BlueZ refused it: a call per packet */
} BulkMode;

typedef struct
{
  MithermLink *link; /* borrowed */
  const MithermCharacteristic *gatt;
  guint subscription;
  gboolean notifying;
} Channel;

/* A call that waits for its turn: a write (@data), or a read. */
typedef struct
{
  const MithermCharacteristic *gatt;
  GBytes *data;
  gboolean request; /* with response: the next one has to wait for it */
  GTask *task;      /* of a read or a write request, else NULL */
  guint64 after;    /* bulk read: ring bytes that must have left before */
} Pending;

typedef struct
{
  GSource source;
  gpointer tag;
} DescriptorSource;

struct _MithermLink
{
  GObject parent_instance;

  GDBusConnection *bus;
  GVariant *no_options; /* (a{sv}), empty */
  char *owner;
  char *device_path;
  GPtrArray *characteristics;
  Channel *channels; /* one per characteristic */
  guint16 att_payload;
  MithermLinkState state;
  gboolean outdated; /* BlueZ's services are not the thermometer's */
  guint lost_id;
  MithermLinkStateFunc state_func;
  gpointer state_data;
  MiLinkNotifyFunc notify;
  MiLinkClosedFunc closed;
  gpointer user_data;

  /* Calls, in order. */
  GQueue calls;
  gboolean request_busy;
  GError *write_error; /* of a write that nobody waited for */

  /* Bulk data. */
  BulkMode bulk_mode;
  const MithermCharacteristic *bulk;
  int fd;
  GSource *fd_source;
  guint8 *ring;
  gsize ring_head, ring_used;
  guint64 ring_in, ring_out; /* bytes that have entered and left, ever */
  GQueue bulk_reads;
  GSource *hold; /* ends it */
  gboolean holding;
  gint64 read_us;   /* when the last read of bulk was sent */
  gint64 answer_us; /* how long its answer took */

  /* The last notification, to know a twin. */
  guint8 last[PACKET_MAX];
  gsize last_len;
  guint16 last_channel;
  gint64 last_us;
};

static void mitherm_link_link_init (MiLinkInterface *iface);

G_DEFINE_FINAL_TYPE_WITH_CODE (MithermLink, mitherm_link, G_TYPE_OBJECT,
                               G_IMPLEMENT_INTERFACE (MI_TYPE_LINK, mitherm_link_link_init))

static void pump (MithermLink *self);
static void flush_ring (MithermLink *self);

/* -- Finding, errors ------------------------------------------------------------------------ */

static Channel *
find_channel (MithermLink *self, guint16 channel)
{
  for (guint i = 0; i < self->characteristics->len; i++)
    if (self->channels[i].gatt->channel == channel)
      return &self->channels[i];
  return NULL;
}

static GError *
lost_error (void)
{
  return g_error_new_literal (MI_ERROR, MI_ERROR_LINK_LOST, "the connection is closed");
}

/*
 * Translates the error of a D-Bus call; cancellation stays what it is. Services that are outdated
 * end the link: the next one finds the right ones.
 */
static GError *
to_mi_error (MithermLink *self, const GError *error)
{
  GError *result = NULL;
  gboolean timed_out = g_error_matches (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT);
  MithermBluezVerdict verdict = MITHERM_BLUEZ_FATAL;
  int code = -1;

  result = g_error_copy (error);
  if (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_CANCELLED))
    return result;
  verdict = mitherm_bluez_error_classify (error, &code);
  g_dbus_error_strip_remote_error (result);
  result->domain = MI_ERROR;
  if (verdict == MITHERM_BLUEZ_OUTDATED)
    {
      g_clear_error (&result);
      self->outdated = TRUE;
      return g_error_new_literal (MI_ERROR, MI_ERROR_LINK_LOST,
                                  "BlueZ knew the services of an earlier firmware; it looks again "
                                  "at the next connection (ATT error 0x01)");
    }
  /* Of the errors called Failed only the ATT time-out and "Not connected" mean the link's end. */
  if (verdict == MITHERM_BLUEZ_GONE || timed_out || strstr (error->message, "0x0e") != NULL
      || strcasestr (error->message, "not connected") != NULL)
    result->code = MI_ERROR_LINK_LOST;
  else
    result->code = MI_ERROR_IO;
  return result;
}

/* -- Calls: opcodes, authentication data, reads --------------------------------------------- */

static void
pending_free (gpointer data)
{
  Pending *pending = data;

  g_clear_pointer (&pending->data, g_bytes_unref);
  g_clear_object (&pending->task);
  g_free (pending);
}

static GVariant *
write_arguments (GBytes *data, gboolean request)
{
  GVariantBuilder options;

  g_variant_builder_init (&options, G_VARIANT_TYPE_VARDICT);
  g_variant_builder_add (&options, "{sv}", "type",
                         g_variant_new_string (request ? "request" : "command"));
  return g_variant_new ("(@aya{sv})",
                        g_variant_new_from_bytes (G_VARIANT_TYPE_BYTESTRING, data, TRUE), &options);
}

/* A call has failed because there is no link any more: then let it be so for everybody. */
static void
drop_if_lost (MithermLink *self, const GError *error)
{
  if (g_error_matches (error, MI_ERROR, MI_ERROR_LINK_LOST))
    mi_link_disconnect (MI_LINK (self));
}

typedef struct
{
  MithermLink *link;
  Pending *pending;
} CallData;

static CallData *
call_data_new (MithermLink *self, Pending *pending)
{
  CallData *data = g_new0 (CallData, 1);

  data->link = g_object_ref (self);
  data->pending = pending;
  return data;
}

static void
call_data_free (CallData *data)
{
  g_object_unref (data->link);
  pending_free (data->pending);
  g_free (data);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC (CallData, call_data_free)

static void
on_write_reply (GObject *source, GAsyncResult *result, gpointer user_data)
{
  g_autoptr (CallData) data = user_data;
  g_autoptr (GError) error = NULL;
  g_autoptr (GError) translated = NULL;
  g_autoptr (GVariant) reply
      = g_dbus_connection_call_finish (G_DBUS_CONNECTION (source), result, &error);
  MithermLink *self = data->link;
  Pending *pending = data->pending;

  if (pending->request)
    self->request_busy = FALSE;
  if (reply == NULL)
    {
      translated = to_mi_error (self, error);
      g_debug ("%s: write to %04x: %s", self->device_path, pending->gatt->channel, error->message);
    }
  if (pending->task != NULL && translated != NULL)
    g_task_return_error (pending->task, g_error_copy (translated));
  else if (pending->task != NULL)
    g_task_return_boolean (pending->task, TRUE);
  else if (translated != NULL && self->write_error == NULL)
    self->write_error = g_error_copy (translated);

  if (translated != NULL)
    drop_if_lost (self, translated);
  pump (self);
}

static void
on_read_reply (GObject *source, GAsyncResult *result, gpointer user_data)
{
  g_autoptr (CallData) data = user_data;
  g_autoptr (GError) error = NULL;
  g_autoptr (GVariant) reply
      = g_dbus_connection_call_finish (G_DBUS_CONNECTION (source), result, &error);
  g_autoptr (GVariant) value = NULL;
  GTask *task = data->pending->task;

  if (data->pending->gatt == data->link->bulk)
    data->link->answer_us = g_get_monotonic_time () - data->link->read_us;
  if (reply == NULL)
    {
      g_autoptr (GError) translated = to_mi_error (data->link, error);

      g_task_return_error (task, g_error_copy (translated));
      drop_if_lost (data->link, translated);
      return;
    }
  value = g_variant_get_child_value (reply, 0);
  g_task_return_pointer (task, g_variant_get_data_as_bytes (value), (GDestroyNotify) g_bytes_unref);
}

static gboolean
on_hold_over (GSource *source, GSourceFunc callback, gpointer user_data)
{
  MithermLink *self = user_data;

  g_source_set_ready_time (source, -1);
  self->holding = FALSE;
  flush_ring (self);
  return G_SOURCE_CONTINUE;
}

static void
hold (MithermLink *self)
{
  static GSourceFuncs funcs = { .dispatch = on_hold_over };

  self->read_us = g_get_monotonic_time ();
  if (self->answer_us < HOLD_WORTH_US)
    return;
  if (self->hold == NULL)
    {
      self->hold = g_source_new (&funcs, sizeof (GSource));
      g_source_set_static_name (self->hold, "mitherm-link hold");
      g_source_set_callback (self->hold, NULL, self, NULL);
      g_source_attach (self->hold, g_main_context_get_thread_default ());
    }
  self->holding = TRUE;
  g_source_set_ready_time (self->hold,
                           self->read_us + CLAMP (self->answer_us / 8, HOLD_MIN_US, HOLD_MAX_US));
}

static void
send_read (MithermLink *self, Pending *pending)
{
  GCancellable *cancellable = g_task_get_cancellable (pending->task);
  int limit_ms = READ_LIMIT_MS;

  /*
   * Barriers between blocks come by the hundred, and a timer and a cancellable for each of them
   * cost as much as the block itself. Who uploads has limits of its own.
   */
  if (pending->gatt == self->bulk)
    {
      cancellable = NULL;
      limit_ms = G_MAXINT;
      hold (self);
    }
  g_dbus_connection_call (self->bus, self->owner, pending->gatt->path, CHARACTERISTIC_IFACE,
                          "ReadValue", self->no_options, G_VARIANT_TYPE ("(ay)"),
                          G_DBUS_CALL_FLAGS_NO_AUTO_START, limit_ms, cancellable, on_read_reply,
                          call_data_new (self, pending));
}

/* Sends one call; takes @pending. */
static void
send_call (MithermLink *self, Pending *pending)
{
  if (pending->data == NULL)
    {
      send_read (self, pending);
      return;
    }
  /* Not cancelled: what is written is written, and the next request waits for the reply. */
  self->request_busy = pending->request;
  g_dbus_connection_call (self->bus, self->owner, pending->gatt->path, CHARACTERISTIC_IFACE,
                          "WriteValue", write_arguments (pending->data, pending->request), NULL,
                          G_DBUS_CALL_FLAGS_NO_AUTO_START, READ_LIMIT_MS, NULL, on_write_reply,
                          call_data_new (self, pending));
}

/*
 * Sends what may be sent. Commands and reads need not wait for each other: the bus and bluetoothd
 * keep their order. A second request at the same characteristic would be refused, so requests
 * hold up everything behind them.
 */
static void
pump (MithermLink *self)
{
  while (!self->request_busy && self->state == MITHERM_LINK_OPEN
         && !g_queue_is_empty (&self->calls))
    send_call (self, g_queue_pop_head (&self->calls));
}

static void
push_write (MithermLink *self, const MithermCharacteristic *gatt, const guint8 *data, gsize len,
            gboolean request, GTask *task)
{
  Pending *pending = g_new0 (Pending, 1);

  pending->gatt = gatt;
  pending->data = g_bytes_new (data, len);
  pending->request = request;
  pending->task = task;
  g_queue_push_tail (&self->calls, pending);
  pump (self);
}

/* -- Bulk data: the ring and the descriptor ------------------------------------------------- */

static void
ring_put (MithermLink *self, const guint8 *data, gsize len)
{
  for (gsize i = 0; i < len; i++)
    self->ring[(self->ring_head + self->ring_used + i) % RING_SIZE] = data[i];
  self->ring_used += len;
  self->ring_in += len;
}

static void
ring_peek (MithermLink *self, gsize offset, guint8 *out, gsize len)
{
  for (gsize i = 0; i < len; i++)
    out[i] = self->ring[(self->ring_head + offset + i) % RING_SIZE];
}

static gboolean
ring_push (MithermLink *self, const guint8 *data, gsize len)
{
  guint8 head[2] = { len & 0xff, len >> 8 };

  if (self->ring == NULL)
    self->ring = g_malloc (RING_SIZE);
  if (len + sizeof head > RING_SIZE - self->ring_used)
    return FALSE;
  ring_put (self, head, sizeof head);
  ring_put (self, data, len);
  return TRUE;
}

/* Returns: length of the oldest packet, copied to @out */
static gsize
ring_first (MithermLink *self, guint8 out[PACKET_MAX])
{
  guint8 head[2];
  gsize len = 0;

  ring_peek (self, 0, head, sizeof head);
  len = head[0] | (gsize) head[1] << 8;
  ring_peek (self, sizeof head, out, len);
  return len;
}

static void
ring_drop (MithermLink *self, gsize len)
{
  self->ring_head = (self->ring_head + len + 2) % RING_SIZE;
  self->ring_used -= len + 2;
  self->ring_out += len + 2;
}

static gboolean
on_lost_idle (gpointer user_data)
{
  MithermLink *self = user_data;

  self->lost_id = 0;
  mitherm_link_lost (self, "descriptor closed");
  return G_SOURCE_REMOVE;
}

/* From inside a MiLink call, where "closed" may not be called. */
static void
lose_soon (MithermLink *self)
{
  if (self->lost_id == 0)
    self->lost_id = g_idle_add (on_lost_idle, self);
}

typedef enum
{
  SENT,
  FULL,
  BROKEN,
} SendResult;

static SendResult
send_packet (MithermLink *self, const guint8 *data, gsize len)
{
  gssize sent = -1;

  do
    sent = send (self->fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);
  while (sent < 0 && errno == EINTR);
  if (sent >= 0)
    return SENT;
  return errno == EAGAIN || errno == ENOBUFS ? FULL : BROKEN;
}

static void
watch_descriptor (MithermLink *self, GIOCondition condition)
{
  DescriptorSource *source = (DescriptorSource *) self->fd_source;

  g_source_modify_unix_fd (self->fd_source, source->tag, condition);
}

static gboolean
check_descriptor (GSource *source)
{
  return g_source_query_unix_fd (source, ((DescriptorSource *) source)->tag) != 0;
}

static gboolean
on_descriptor (GSource *source, GSourceFunc callback, gpointer user_data)
{
  g_autoptr (MithermLink) self = g_object_ref (user_data);
  GIOCondition condition = g_source_query_unix_fd (source, ((DescriptorSource *) source)->tag);

  if (condition & (G_IO_HUP | G_IO_ERR | G_IO_NVAL))
    mitherm_link_lost (self, "descriptor closed");
  else
    flush_ring (self);
  return G_SOURCE_CONTINUE;
}

static void
release_reads (MithermLink *self)
{
  Pending *pending = NULL;

  while ((pending = g_queue_peek_head (&self->bulk_reads)) != NULL
         && pending->after <= self->ring_out)
    {
      g_queue_push_tail (&self->calls, g_queue_pop_head (&self->bulk_reads));
      pump (self);
    }
}

/* Moves packets on as far as the descriptor takes them, and reads that waited for them. */
static void
flush_ring (MithermLink *self)
{
  guint8 packet[PACKET_MAX];

  while (self->ring_used > 0 && !self->holding && self->bulk_mode > BULK_ACQUIRING)
    {
      gsize len = ring_first (self, packet);
      SendResult result = SENT;

      if (self->bulk_mode == BULK_CALLS)
        push_write (self, self->bulk, packet, len, FALSE, NULL);
      else
        result = send_packet (self, packet, len);
      if (result == BROKEN)
        {
          lose_soon (self);
          return;
        }
      if (result == FULL)
        {
          watch_descriptor (self, G_IO_HUP | G_IO_ERR | G_IO_OUT);
          return;
        }
      ring_drop (self, len);
      release_reads (self);
    }
  if (self->bulk_mode == BULK_DESCRIPTOR)
    watch_descriptor (self, G_IO_HUP | G_IO_ERR);
}

static void
open_descriptor (MithermLink *self, int fd)
{
  static GSourceFuncs funcs = { .check = check_descriptor, .dispatch = on_descriptor };

  self->fd = fd;
  self->bulk_mode = BULK_DESCRIPTOR;
  self->fd_source = g_source_new (&funcs, sizeof (DescriptorSource));
  g_source_set_static_name (self->fd_source, "mitherm-link");
  ((DescriptorSource *) self->fd_source)->tag
      = g_source_add_unix_fd (self->fd_source, fd, G_IO_HUP | G_IO_ERR);
  g_source_set_callback (self->fd_source, NULL, self, NULL);
  g_source_attach (self->fd_source, g_main_context_get_thread_default ());
}

static void
on_acquired (GObject *source, GAsyncResult *result, gpointer user_data)
{
  g_autoptr (MithermLink) self = user_data;
  g_autoptr (GError) error = NULL;
  g_autoptr (GError) translated = NULL;
  g_autoptr (GUnixFDList) fds = NULL;
  g_autoptr (GVariant) reply = g_dbus_connection_call_with_unix_fd_list_finish (
      G_DBUS_CONNECTION (source), &fds, result, &error);
  gint32 handle = -1;
  guint16 mtu = 0;
  int fd = -1;

  if (reply != NULL)
    {
      g_variant_get (reply, "(hq)", &handle, &mtu);
      fd = fds != NULL ? g_unix_fd_list_get (fds, handle, &error) : -1;
    }
  if (self->state != MITHERM_LINK_OPEN)
    {
      if (fd >= 0)
        close (fd);
      return;
    }
  if (fd >= 0)
    open_descriptor (self, fd);
  else
    {
      g_debug ("%s: no descriptor for %04x, writing by calls: %s", self->device_path,
               self->bulk->channel, error != NULL ? error->message : "none in the answer");
      self->bulk_mode = BULK_CALLS;
      translated = error != NULL ? to_mi_error (self, error) : NULL;
    }
  if (translated != NULL)
    drop_if_lost (self, translated);
  flush_ring (self);
}

static void
acquire (MithermLink *self, const MithermCharacteristic *gatt)
{
  self->bulk = gatt;
  self->bulk_mode = BULK_ACQUIRING;
  g_dbus_connection_call_with_unix_fd_list (self->bus, self->owner, gatt->path,
                                            CHARACTERISTIC_IFACE, "AcquireWrite", self->no_options,
                                            G_VARIANT_TYPE ("(hq)"),
                                            G_DBUS_CALL_FLAGS_NO_AUTO_START, CALL_LIMIT_MS, NULL,
                                            NULL, on_acquired, g_object_ref (self));
}

static gboolean
write_bulk (MithermLink *self, const MithermCharacteristic *gatt, const guint8 *data, gsize len,
            GError **error)
{
  SendResult result = FULL;

  if (self->bulk_mode == BULK_IDLE)
    acquire (self, gatt);
  if (self->bulk_mode == BULK_CALLS)
    {
      push_write (self, gatt, data, len, FALSE, NULL);
      return TRUE;
    }
  if (self->bulk_mode == BULK_DESCRIPTOR && self->ring_used == 0 && !self->holding)
    result = send_packet (self, data, len);
  if (result == SENT)
    return TRUE;
  if (result == BROKEN)
    {
      lose_soon (self);
      g_propagate_error (error, lost_error ());
      return FALSE;
    }
  if (!ring_push (self, data, len))
    {
      g_set_error (error, MI_ERROR, MI_ERROR_IO, "more than %d bytes wait for the radio",
                   RING_SIZE);
      return FALSE;
    }
  if (self->bulk_mode == BULK_DESCRIPTOR && !self->holding)
    watch_descriptor (self, G_IO_HUP | G_IO_ERR | G_IO_OUT);
  return TRUE;
}

/* -- MiLink: writing and reading ------------------------------------------------------------ */

static MiLinkFlags
link_get_flags (MiLink *link, guint16 channel)
{
  Channel *found = find_channel (MITHERM_LINK (link), channel);

  return found != NULL ? found->gatt->flags : 0;
}

static guint16
link_get_att_payload (MiLink *link)
{
  return MITHERM_LINK (link)->att_payload;
}

/* Whether @len bytes may be written to @channel, or anything at all. */
static Channel *
check_write (MithermLink *self, guint16 channel, gsize len, GError **error)
{
  Channel *found = find_channel (self, channel);
  gsize max = MIN (self->att_payload, PACKET_MAX);

  if (self->state != MITHERM_LINK_OPEN || self->lost_id != 0)
    g_propagate_error (error, lost_error ());
  else if (self->write_error != NULL)
    g_propagate_prefixed_error (error, g_steal_pointer (&self->write_error),
                                "an earlier write failed: ");
  else if (found == NULL || (found->gatt->flags & (MI_LINK_WRITE | MI_LINK_WRITE_COMMAND)) == 0)
    g_set_error (error, MI_ERROR, MI_ERROR_IO, "characteristic %04x cannot be written", channel);
  /* bluetoothd drops a packet that is too long without a word. */
  else if (len > max)
    g_set_error (error, MI_ERROR, MI_ERROR_IO,
                 "%" G_GSIZE_FORMAT " bytes of at most %" G_GSIZE_FORMAT " for %04x", len, max,
                 channel);
  else
    return found;
  return NULL;
}

static gboolean
link_write (MiLink *link, guint16 channel, const guint8 *data, gsize len, GError **error)
{
  MithermLink *self = MITHERM_LINK (link);
  Channel *found = check_write (self, channel, len, error);
  gboolean command = FALSE;

  if (found == NULL)
    return FALSE;
  self->last_len = 0;
  command = (found->gatt->flags & MI_LINK_WRITE_COMMAND) != 0;
  if (command && channel == MI_CHANNEL_OTA)
    return write_bulk (self, found->gatt, data, len, error);
  push_write (self, found->gatt, data, len, !command, NULL);
  return TRUE;
}

static void
link_write_request_async (MiLink *link, guint16 channel, const guint8 *data, gsize len,
                          GCancellable *cancellable, GAsyncReadyCallback callback,
                          gpointer user_data)
{
  MithermLink *self = MITHERM_LINK (link);
  g_autoptr (GTask) task = g_task_new (self, cancellable, callback, user_data);
  GError *error = NULL;
  Channel *found = NULL;

  g_task_set_source_tag (task, link_write_request_async);
  found = check_write (self, channel, len, &error);
  if (found == NULL)
    {
      g_task_return_error (task, error);
      return;
    }
  self->last_len = 0;
  push_write (self, found->gatt, data, len, TRUE, g_steal_pointer (&task));
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
  MithermLink *self = MITHERM_LINK (link);
  g_autoptr (GTask) task = g_task_new (self, cancellable, callback, user_data);
  Channel *found = find_channel (self, channel);
  Pending *pending = NULL;

  g_task_set_source_tag (task, link_read_async);
  if (self->state != MITHERM_LINK_OPEN || self->lost_id != 0)
    g_task_return_error (task, lost_error ());
  else if (self->write_error != NULL)
    g_task_return_error (task, g_steal_pointer (&self->write_error));
  else if (found == NULL || (found->gatt->flags & MI_LINK_READ) == 0)
    g_task_return_new_error (task, MI_ERROR, MI_ERROR_IO, "characteristic %04x cannot be read",
                             channel);
  else
    {
      pending = g_new0 (Pending, 1);
      pending->gatt = found->gatt;
      pending->task = g_steal_pointer (&task);
      pending->after = self->ring_in;
      /* A read is a barrier: it must not overtake what still waits for the descriptor. */
      if (found->gatt == self->bulk && self->ring_out < pending->after)
        g_queue_push_tail (&self->bulk_reads, pending);
      else
        g_queue_push_tail (&self->calls, pending);
      pump (self);
    }
}

static GBytes *
link_read_finish (MiLink *link, GAsyncResult *result, GError **error)
{
  return g_task_propagate_pointer (G_TASK (result), error);
}

/* -- MiLink: notifications ------------------------------------------------------------------ */

/*
 * With a second bus client subscribed, BlueZ signals each packet twice. Twins come back to back,
 * without anything from us in between; a device that repeats itself takes longer.
 */
static gboolean
is_twin (MithermLink *self, guint16 channel, const guint8 *data, gsize len)
{
  gint64 now_us = g_get_monotonic_time ();
  gboolean twin = len > 0 && len == self->last_len && channel == self->last_channel
                  && now_us - self->last_us < TWIN_LIMIT_US && memcmp (data, self->last, len) == 0;

  self->last_len = twin || len > sizeof self->last ? 0 : len;
  self->last_channel = channel;
  self->last_us = now_us;
  memcpy (self->last, data, self->last_len);
  return twin;
}

static void
on_value_changed (GDBusConnection *bus, const char *sender, const char *path, const char *interface,
                  const char *signal, GVariant *parameters, gpointer user_data)
{
  Channel *channel = user_data;
  MithermLink *self = channel->link;
  g_autoptr (GVariant) changed = NULL;
  g_autoptr (GVariant) value = NULL;
  const guint8 *data = NULL;
  gsize len = 0;

  if (self->state != MITHERM_LINK_OPEN
      || !g_variant_is_of_type (parameters, G_VARIANT_TYPE ("(sa{sv}as)")))
    return;
  changed = g_variant_get_child_value (parameters, 1);
  value = g_variant_lookup_value (changed, "Value", G_VARIANT_TYPE_BYTESTRING);
  if (value == NULL)
    return;
  data = g_variant_get_fixed_array (value, &len, 1);
  if (is_twin (self, channel->gatt->channel, data, len) || self->notify == NULL)
    return;
  self->notify (MI_LINK (self), channel->gatt->channel, data, len, self->user_data);
}

typedef struct
{
  Channel *channel;
  guint tries;
  GSource *retry;
} Subscribe;

static void
subscribe_free (gpointer data)
{
  g_free (data);
}

static void start_notify (GTask *task);

static gboolean
on_subscribe_retry (gpointer user_data)
{
  start_notify (user_data);
  return G_SOURCE_REMOVE;
}

static void
on_start_notify_reply (GObject *source, GAsyncResult *result, gpointer user_data)
{
  g_autoptr (GTask) task = user_data;
  MithermLink *self = g_task_get_source_object (task);
  Subscribe *subscribe = g_task_get_task_data (task);
  g_autoptr (GError) error = NULL;
  g_autoptr (GError) translated = NULL;
  g_autoptr (GVariant) reply
      = g_dbus_connection_call_finish (G_DBUS_CONNECTION (source), result, &error);

  if (reply != NULL)
    {
      subscribe->channel->notifying = TRUE;
      g_task_return_boolean (task, TRUE);
      return;
    }
  if (self->state == MITHERM_LINK_OPEN && subscribe->tries < SUBSCRIBE_RETRY_MAX
      && !g_error_matches (error, G_IO_ERROR, G_IO_ERROR_CANCELLED)
      && mitherm_bluez_error_classify (error, NULL) == MITHERM_BLUEZ_BUSY)
    {
      subscribe->tries++;
      g_timeout_add_full (G_PRIORITY_DEFAULT, SUBSCRIBE_RETRY_MS, on_subscribe_retry,
                          g_steal_pointer (&task), g_object_unref);
      return;
    }
  translated = to_mi_error (self, error);
  g_task_return_error (task, g_error_copy (translated));
  drop_if_lost (self, translated);
}

static void
start_notify (GTask *task)
{
  MithermLink *self = g_task_get_source_object (task);
  Subscribe *subscribe = g_task_get_task_data (task);

  if (self->state != MITHERM_LINK_OPEN)
    {
      g_task_return_error (task, lost_error ());
      return;
    }
  g_dbus_connection_call (self->bus, self->owner, subscribe->channel->gatt->path,
                          CHARACTERISTIC_IFACE, "StartNotify", NULL, NULL,
                          G_DBUS_CALL_FLAGS_NO_AUTO_START, CALL_LIMIT_MS,
                          g_task_get_cancellable (task), on_start_notify_reply,
                          g_object_ref (task));
}

static void
link_subscribe_async (MiLink *link, guint16 channel, GCancellable *cancellable,
                      GAsyncReadyCallback callback, gpointer user_data)
{
  MithermLink *self = MITHERM_LINK (link);
  g_autoptr (GTask) task = g_task_new (self, cancellable, callback, user_data);
  Channel *found = find_channel (self, channel);
  Subscribe *subscribe = NULL;

  g_task_set_source_tag (task, link_subscribe_async);
  if (found == NULL || (found->gatt->flags & MI_LINK_NOTIFY) == 0)
    {
      g_task_return_new_error (task, MI_ERROR, MI_ERROR_IO, "characteristic %04x does not notify",
                               channel);
      return;
    }
  if (found->notifying && self->state == MITHERM_LINK_OPEN)
    {
      g_task_return_boolean (task, TRUE);
      return;
    }
  /* The match rule travels before StartNotify, so that no packet is missed. */
  if (found->subscription == 0)
    found->subscription = g_dbus_connection_signal_subscribe (
        self->bus, self->owner, "org.freedesktop.DBus.Properties", "PropertiesChanged",
        found->gatt->path, CHARACTERISTIC_IFACE, G_DBUS_SIGNAL_FLAGS_NONE, on_value_changed, found,
        NULL);
  subscribe = g_new0 (Subscribe, 1);
  subscribe->channel = found;
  g_task_set_task_data (task, subscribe, subscribe_free);
  start_notify (task);
}

static gboolean
link_subscribe_finish (MiLink *link, GAsyncResult *result, GError **error)
{
  return g_task_propagate_boolean (G_TASK (result), error);
}

/* -- The end -------------------------------------------------------------------------------- */

static void
set_state (MithermLink *self, MithermLinkState state)
{
  self->state = state;
  if (self->state_func != NULL)
    self->state_func (self, state, self->state_data);
}

/*
 * Gives everything back that we hold in bluetoothd. A StartNotify session would outlive the
 * connection and subscribe again in the next one.
 */
static void
release (MithermLink *self)
{
  for (guint i = 0; self->channels != NULL && i < self->characteristics->len; i++)
    {
      Channel *channel = &self->channels[i];

      if (channel->subscription != 0)
        g_dbus_connection_signal_unsubscribe (self->bus, channel->subscription);
      channel->subscription = 0;
      if (channel->notifying)
        g_dbus_connection_call (self->bus, self->owner, channel->gatt->path, CHARACTERISTIC_IFACE,
                                "StopNotify", NULL, NULL, G_DBUS_CALL_FLAGS_NO_AUTO_START, -1, NULL,
                                NULL, NULL);
      channel->notifying = FALSE;
    }
  if (self->fd_source != NULL)
    g_source_destroy (self->fd_source);
  g_clear_pointer (&self->fd_source, g_source_unref);
  if (self->hold != NULL)
    g_source_destroy (self->hold);
  g_clear_pointer (&self->hold, g_source_unref);
  if (self->fd >= 0)
    close (self->fd);
  self->fd = -1;
  g_clear_handle_id (&self->lost_id, g_source_remove);
}

static void
fail_queue (GQueue *queue)
{
  Pending *pending = NULL;

  while ((pending = g_queue_pop_head (queue)) != NULL)
    {
      if (pending->task != NULL)
        g_task_return_error (pending->task, lost_error ());
      pending_free (pending);
    }
}

void
mitherm_link_lost (MithermLink *self, const char *why)
{
  g_autoptr (MithermLink) keep = NULL;

  g_return_if_fail (MITHERM_IS_LINK (self));

  if (self->state == MITHERM_LINK_CLOSED)
    return;
  keep = g_object_ref (self);
  g_debug ("%s: closed: %s", self->device_path, why);
  set_state (self, MITHERM_LINK_CLOSED);
  release (self);
  fail_queue (&self->calls);
  fail_queue (&self->bulk_reads);
  if (self->closed != NULL)
    self->closed (MI_LINK (self), self->user_data);
}

static void
on_disconnect_reply (GObject *source, GAsyncResult *result, gpointer user_data)
{
  g_autoptr (MithermLink) self = user_data;
  g_autoptr (GError) error = NULL;
  g_autoptr (GVariant) reply
      = g_dbus_connection_call_finish (G_DBUS_CONNECTION (source), result, &error);

  /* Whatever it says: there is nothing more that we could do about this connection. */
  if (reply == NULL)
    g_debug ("%s: disconnecting: %s", self->device_path, error->message);
  mitherm_link_lost (self, "disconnected");
}

static void
link_disconnect (MiLink *link)
{
  MithermLink *self = MITHERM_LINK (link);

  if (self->state != MITHERM_LINK_OPEN)
    return;
  /* What waits for its turn fails when the link is closed, not inside this call. */
  set_state (self, MITHERM_LINK_DROPPING);
  release (self);
  g_dbus_connection_call (self->bus, self->owner, self->device_path, "org.bluez.Device1",
                          "Disconnect", NULL, NULL, G_DBUS_CALL_FLAGS_NO_AUTO_START, CALL_LIMIT_MS,
                          NULL, on_disconnect_reply, g_object_ref (self));
}

static gboolean
link_is_closed (MiLink *link)
{
  MithermLink *self = MITHERM_LINK (link);

  return self->state == MITHERM_LINK_CLOSED || self->lost_id != 0;
}

static void
link_set_callbacks (MiLink *link, MiLinkNotifyFunc notify, MiLinkClosedFunc closed,
                    gpointer user_data)
{
  MithermLink *self = MITHERM_LINK (link);

  self->notify = notify;
  self->closed = closed;
  self->user_data = user_data;
}

static void
mitherm_link_link_init (MiLinkInterface *iface)
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

/* -- The object ----------------------------------------------------------------------------- */

void
mitherm_link_set_state_func (MithermLink *self, MithermLinkStateFunc func, gpointer user_data)
{
  g_return_if_fail (MITHERM_IS_LINK (self));

  self->state_func = func;
  self->state_data = user_data;
}

gboolean
mitherm_link_is_outdated (MithermLink *self)
{
  return self->outdated;
}

MithermLinkState
mitherm_link_get_state (MithermLink *self)
{
  g_return_val_if_fail (MITHERM_IS_LINK (self), MITHERM_LINK_CLOSED);

  return self->state;
}

/* ATT_MTU - 3. Before BlueZ 5.62 only descriptors tell it: the least is safe then. */
static guint16
find_att_payload (GPtrArray *characteristics)
{
  guint16 mtu = 0;

  for (guint i = 0; i < characteristics->len; i++)
    mtu = MAX (mtu, ((MithermCharacteristic *) characteristics->pdata[i])->mtu);
  return mtu > 23 ? mtu - 3 : 20;
}

MithermLink *
mitherm_link_new (GDBusConnection *bus, const char *owner, const char *device_path,
                  GPtrArray *characteristics)
{
  MithermLink *self = g_object_new (MITHERM_TYPE_LINK, NULL);

  self->bus = g_object_ref (bus);
  self->owner = g_strdup (owner);
  self->device_path = g_strdup (device_path);
  self->characteristics = characteristics;
  self->att_payload = find_att_payload (characteristics);
  self->channels = g_new0 (Channel, characteristics->len);
  for (guint i = 0; i < characteristics->len; i++)
    {
      self->channels[i].link = self;
      self->channels[i].gatt = characteristics->pdata[i];
    }
  return self;
}

static void
mitherm_link_dispose (GObject *object)
{
  MithermLink *self = MITHERM_LINK (object);

  /* Only an open link gets here with something to end: a dropping one is held by its call. */
  if (self->state == MITHERM_LINK_OPEN && self->bus != NULL)
    {
      self->closed = NULL;
      release (self);
      g_dbus_connection_call (self->bus, self->owner, self->device_path, "org.bluez.Device1",
                              "Disconnect", NULL, NULL, G_DBUS_CALL_FLAGS_NO_AUTO_START, -1, NULL,
                              NULL, NULL);
      set_state (self, MITHERM_LINK_CLOSED);
    }
  G_OBJECT_CLASS (mitherm_link_parent_class)->dispose (object);
}

static void
mitherm_link_finalize (GObject *object)
{
  MithermLink *self = MITHERM_LINK (object);

  g_clear_object (&self->bus);
  g_variant_unref (self->no_options);
  g_clear_pointer (&self->characteristics, g_ptr_array_unref);
  g_clear_error (&self->write_error);
  g_free (self->channels);
  g_free (self->owner);
  g_free (self->device_path);
  g_free (self->ring);
  G_OBJECT_CLASS (mitherm_link_parent_class)->finalize (object);
}

static void
mitherm_link_class_init (MithermLinkClass *klass)
{
  G_OBJECT_CLASS (klass)->dispose = mitherm_link_dispose;
  G_OBJECT_CLASS (klass)->finalize = mitherm_link_finalize;
}

static void
mitherm_link_init (MithermLink *self)
{
  self->fd = -1;
  self->no_options = g_variant_ref_sink (g_variant_new ("(a{sv})", NULL));
}
