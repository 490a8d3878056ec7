/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "sim-fake-private.h"

#include <string.h>

/* Where the vendor's services start: below are those that every device has (0x1800, 0x1801). */
#define FIRST_HANDLE 0x000c
/* Connection events that resolving services takes when the table is cached: only their list is
 * read. */
#define CACHED_EVENTS 3

/* A packet, or a request and its answer. */
typedef struct
{
  FakeOpKind kind;
  FakeChrc *chrc; /* NULL for commands, and when the characteristic has gone */
  guint16 handle;
  GBytes *data; /* to write; after execution: what was read */
  FakeAttError code;
} FakeOp;

/* From the thermometer: a notification, the answer to a request, or the end of the link. */
typedef struct
{
  enum
  {
    DOWN_NOTIFY,
    DOWN_ANSWER,
    DOWN_HANG_UP,
  } kind;
  guint16 handle;
  GBytes *data;
} FakeDown;

struct _FakeLink
{
  FakeDevice *device;
  FakePeer *peer;
  GArray *table; /* of FakeAttribute */
  SimRadio radio;
  GQueue up;       /* of FakeOp */
  GQueue down;     /* of FakeDown */
  FakeOp *pending; /* request that waits for its answer: one at a time on an ATT channel */
  SimTimer event;
  gint64 anchor_ms;
};

static void
op_free (FakeOp *op)
{
  if (op == NULL)
    return;
  g_clear_pointer (&op->data, g_bytes_unref);
  g_free (op);
}

static void
down_free (FakeDown *down)
{
  g_clear_pointer (&down->data, g_bytes_unref);
  g_free (down);
}

/* --- the attribute table --- */

GArray *
fake_link_read_table (SimDevice *sim)
{
  GArray *table = g_array_new (FALSE, FALSE, sizeof (FakeAttribute));
  guint n;
  const SimCharacteristic *chrc = sim_device_get_gatt (sim, &n);
  guint16 handle = FIRST_HANDLE;

  for (guint i = 0; i < n; i++)
    {
      FakeAttribute attribute = { .channel = chrc[i].channel, .flags = chrc[i].flags };

      if (i > 0 && !g_str_equal (chrc[i].service, chrc[i - 1].service))
        handle++;                    /* declaration of the next service */
      attribute.handle = handle + 2; /* after its own declaration */
      g_array_append_val (table, attribute);
      handle += (chrc[i].flags & MI_LINK_NOTIFY) != 0 ? 3 : 2;
    }
  return table;
}

static const FakeAttribute *
find_handle (FakeLink *link, guint16 handle)
{
  for (guint i = 0; i < link->table->len; i++)
    {
      const FakeAttribute *attribute = &g_array_index (link->table, FakeAttribute, i);

      if (attribute->handle == handle)
        return attribute;
    }
  return NULL;
}

static const FakeAttribute *
find_channel (FakeLink *link, guint16 channel)
{
  for (guint i = 0; i < link->table->len; i++)
    {
      const FakeAttribute *attribute = &g_array_index (link->table, FakeAttribute, i);

      if (attribute->channel == channel)
        return attribute;
    }
  return NULL;
}

void
fake_link_table_changed (FakeLink *link)
{
  g_array_unref (link->table);
  link->table = fake_link_read_table (link->peer->sim);
}

guint
fake_link_resolve_ms (FakeLink *link, gboolean cached)
{
  guint events = cached ? CACHED_EVENTS : CACHED_EVENTS + link->table->len;

  return events * link->radio.interval_ms;
}

/* --- what the thermometer makes of a packet --- */

static FakeAttError
execute_write (FakeLink *link, FakeOpKind kind, guint16 handle, const guint8 *data, gsize len)
{
  const FakeAttribute *attribute = find_handle (link, handle);
  MiLinkFlags needed = kind == FAKE_WRITE_COMMAND ? MI_LINK_WRITE_COMMAND : MI_LINK_WRITE;
  g_autoptr (GError) error = NULL;

  if (attribute == NULL)
    return FAKE_ATT_INVALID_HANDLE;
  if ((attribute->flags & needed) == 0)
    return FAKE_ATT_WRITE_NOT_PERMITTED;
  if (len > link->peer->att_payload)
    return FAKE_ATT_REQUEST_NOT_SUPPORTED; /* thermometers know no prepared writes */
  if (sim_device_write (link->peer->sim, sim_now_ms (), attribute->channel, data, len, &error))
    return FAKE_ATT_OK;
  g_debug ("%s: write of 0x%04x: %s", link->peer->address, attribute->channel, error->message);
  return FAKE_ATT_WRITE_NOT_PERMITTED;
}

static FakeAttError
execute_read (FakeLink *link, FakeOp *op)
{
  const FakeAttribute *attribute = find_handle (link, op->handle);
  guint8 buffer[SIM_PACKET_MAX];
  gsize len = sizeof buffer;
  g_autoptr (GError) error = NULL;

  if (attribute == NULL)
    return FAKE_ATT_INVALID_HANDLE;
  if ((attribute->flags & MI_LINK_READ) == 0)
    return FAKE_ATT_READ_NOT_PERMITTED;
  if (!sim_device_read (link->peer->sim, sim_now_ms (), attribute->channel, buffer, &len, &error))
    {
      g_debug ("%s: read of 0x%04x: %s", link->peer->address, attribute->channel, error->message);
      return g_error_matches (error, MI_ERROR, MI_ERROR_TIMEOUT) ? FAKE_ATT_NO_ANSWER
                                                                 : FAKE_ATT_UNLIKELY;
    }
  op->data = g_bytes_new (buffer, len);
  return FAKE_ATT_OK;
}

static void
execute (FakeLink *link, FakeOp *op)
{
  const FakeAttribute *attribute;
  const guint8 *data;
  gsize len = 0;

  switch (op->kind)
    {
    case FAKE_WRITE_COMMAND:
    case FAKE_WRITE_REQUEST:
      data = g_bytes_get_data (op->data, &len);
      op->code = execute_write (link, op->kind, op->handle, data, len);
      break;
    case FAKE_READ_REQUEST:
      op->code = execute_read (link, op);
      break;
    case FAKE_SUBSCRIBE_REQUEST:
      attribute = find_handle (link, op->handle);
      op->code = attribute != NULL && (attribute->flags & MI_LINK_NOTIFY) != 0
                     ? FAKE_ATT_OK
                     : FAKE_ATT_INVALID_HANDLE;
      break;
    default:
      g_return_if_reached ();
    }
}

static void
answer (FakeOp *op)
{
  FakeChrc *chrc = op->chrc;

  if (chrc == NULL)
    return;
  switch (op->kind)
    {
    case FAKE_WRITE_COMMAND:
      break;
    case FAKE_WRITE_REQUEST:
      fake_chrc_write_done (chrc, op->code);
      break;
    case FAKE_READ_REQUEST:
      fake_chrc_read_done (chrc, op->code, op->data);
      break;
    case FAKE_SUBSCRIBE_REQUEST:
      fake_chrc_subscribe_done (chrc, op->code);
      break;
    default:
      g_return_if_reached ();
    }
}

/* --- connection events --- */

static gboolean
is_lost (FakeLink *link)
{
  return link->radio.loss_permille > 0
         && g_rand_int_range (link->peer->bluez->rand, 0, 1000) < (gint) link->radio.loss_permille;
}

static void
arm_event (FakeLink *link)
{
  gint64 interval = link->radio.interval_ms;
  gint64 since = sim_now_ms () - link->anchor_ms;

  if (!sim_timer_is_running (&link->event))
    sim_timer_start (link->peer->bluez->schedule, &link->event,
                     link->anchor_ms + (since / interval + 1) * interval);
}

static void
push_down (FakeLink *link, int kind, guint16 handle, GBytes *data)
{
  FakeDown *down = g_new0 (FakeDown, 1);

  down->kind = kind;
  down->handle = handle;
  down->data = data;
  g_queue_push_tail (&link->down, down);
  arm_event (link);
}

/* Returns: FALSE: the link has gone */
static gboolean
deliver (FakeLink *link, FakeDown *down)
{
  gsize len = 0;
  const guint8 *data;
  FakeOp *op;

  switch (down->kind)
    {
    case DOWN_NOTIFY:
      data = g_bytes_get_data (down->data, &len);
      fake_gatt_notify (link->device, down->handle, data, len);
      return TRUE;
    case DOWN_ANSWER:
      op = g_steal_pointer (&link->pending);
      answer (op);
      op_free (op);
      return TRUE;
    case DOWN_HANG_UP:
      fake_peer_drop_link (link->peer);
      return FALSE;
    default:
      g_return_val_if_reached (TRUE);
    }
}

/* @budget: packets that may still be sent in this event. Returns: FALSE: the link has gone */
static gboolean
run_down (FakeLink *link, guint *budget)
{
  for (; *budget > 0; (*budget)--)
    {
      FakeDown *down = g_queue_peek_head (&link->down);
      gboolean is_up;

      if (down == NULL)
        break;
      if (is_lost (link))
        continue; /* sent again in the next slot */
      g_queue_pop_head (&link->down);
      is_up = deliver (link, down);
      down_free (down);
      if (!is_up)
        return FALSE;
    }
  return TRUE;
}

/* The next packet that may be sent: commands pass a request that waits for another's answer. */
static GList *
find_sendable (FakeLink *link)
{
  for (GList *l = link->up.head; l != NULL; l = l->next)
    if (((FakeOp *) l->data)->kind == FAKE_WRITE_COMMAND || link->pending == NULL)
      return l;
  return NULL;
}

static void
run_up (FakeLink *link)
{
  for (guint budget = link->radio.packets_per_event; budget > 0; budget--)
    {
      GList *next = find_sendable (link);
      FakeOp *op;

      if (next == NULL)
        break;
      if (is_lost (link))
        continue;
      op = next->data;
      g_queue_delete_link (&link->up, next);
      execute (link, op);
      if (op->kind == FAKE_WRITE_COMMAND)
        op_free (op);
      else
        {
          link->pending = op;
          if (op->code != FAKE_ATT_NO_ANSWER)
            push_down (link, DOWN_ANSWER, 0, NULL);
        }
      fake_peer_pump (link->peer); /* here, the end of the link is queued as well */
    }
}

static void
on_event (gpointer user_data)
{
  FakeLink *link = user_data;
  guint budget = link->radio.packets_per_event;

  if (!run_down (link, &budget))
    return;
  run_up (link);
  /* Both sides take turns in an event, so that what was just asked can be answered in it. */
  if (!run_down (link, &budget))
    return;
  if (find_sendable (link) != NULL || link->down.length > 0)
    arm_event (link);
}

/* --- sending --- */

static FakeOp *
op_new (FakeOpKind kind, FakeChrc *chrc, const guint8 *data, gsize len)
{
  FakeOp *op = g_new0 (FakeOp, 1);

  op->kind = kind;
  op->chrc = kind == FAKE_WRITE_COMMAND ? NULL : chrc;
  op->handle = chrc->handle;
  if (data != NULL)
    op->data = g_bytes_new (data, len);
  return op;
}

static void
send_command_now (FakeLink *link, FakeChrc *chrc, const guint8 *data, gsize len)
{
  FakePeer *peer = link->peer;

  execute_write (link, FAKE_WRITE_COMMAND, chrc->handle, data, len);
  fake_peer_pump (peer); /* may end the link */
}

static void
send_request_now (FakeLink *link, FakeOp *op)
{
  FakePeer *peer = link->peer;

  if (link->pending != NULL) /* a device that gives no answer: this one never gets its turn */
    {
      g_queue_push_tail (&link->up, op);
      return;
    }
  execute (link, op);
  if (op->code == FAKE_ATT_NO_ANSWER)
    link->pending = op;
  else
    {
      answer (op);
      op_free (op);
    }
  fake_peer_pump (peer); /* may end the link */
}

void
fake_link_send (FakeLink *link, FakeOpKind kind, FakeChrc *chrc, const guint8 *data, gsize len)
{
  if (link->radio.interval_ms > 0)
    {
      g_queue_push_tail (&link->up, op_new (kind, chrc, data, len));
      arm_event (link);
    }
  else if (kind == FAKE_WRITE_COMMAND)
    send_command_now (link, chrc, data, len);
  else
    send_request_now (link, op_new (kind, chrc, data, len));
}

void
fake_link_notified (FakeLink *link, guint16 channel, const guint8 *data, gsize len)
{
  const FakeAttribute *attribute = find_channel (link, channel);

  if (attribute == NULL)
    return;
  if (link->radio.interval_ms == 0)
    fake_gatt_notify (link->device, attribute->handle, data, len);
  else
    push_down (link, DOWN_NOTIFY, attribute->handle, g_bytes_new (data, len));
}

void
fake_link_hung_up (FakeLink *link)
{
  if (link->radio.interval_ms == 0)
    fake_peer_drop_link (link->peer);
  else
    push_down (link, DOWN_HANG_UP, 0, NULL);
}

void
fake_link_forget (FakeLink *link, FakeChrc *chrc)
{
  for (GList *l = link->up.head; l != NULL; l = l->next)
    if (((FakeOp *) l->data)->chrc == chrc)
      ((FakeOp *) l->data)->chrc = NULL;
  if (link->pending != NULL && link->pending->chrc == chrc)
    link->pending->chrc = NULL;
}

FakeLink *
fake_link_new (FakeDevice *device)
{
  FakeLink *link = g_new0 (FakeLink, 1);

  link->device = device;
  link->peer = device->peer;
  link->table = fake_link_read_table (link->peer->sim);
  sim_device_get_radio (link->peer->sim, &link->radio);
  if (link->radio.interval_ms > 0)
    link->radio.packets_per_event = MAX (link->radio.packets_per_event, 1);
  g_queue_init (&link->up);
  g_queue_init (&link->down);
  sim_timer_init (&link->event, on_event, link);
  link->anchor_ms = sim_now_ms ();
  return link;
}

static void
abort_op (FakeOp *op)
{
  if (op == NULL)
    return;
  op->code = FAKE_ATT_UNLIKELY;
  g_clear_pointer (&op->data, g_bytes_unref);
  answer (op);
  op_free (op);
}

void
fake_link_free (FakeLink *link)
{
  FakeDown *down;
  FakeOp *op;

  sim_timer_stop (link->peer->bluez->schedule, &link->event);
  abort_op (g_steal_pointer (&link->pending));
  while ((op = g_queue_pop_head (&link->up)) != NULL)
    abort_op (op);
  while ((down = g_queue_pop_head (&link->down)) != NULL)
    down_free (down);
  g_array_unref (link->table);
  g_free (link);
}
