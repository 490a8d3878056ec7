/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "mi-frame.h"

#include "mi-bytes.h"

#include <string.h>

/* protocol/framing.md: sections 1 (frames), 3 and 4 (limits), 6 (exploration). */
#define FRAME_LEN_MAX     512 /* longest attribute value */
#define LATCH_MAX         FRAME_LEN_MAX
#define LOST_MAX          16 /* numbers in one LOST of ours, whatever was negotiated */
#define DMTU_START        18
#define DMTU_MIN          4 /* smaller ones cannot be meant */
#define DMTU_MAX          242
#define SIMUL_OWN         6
#define HOST_ACK_MS       10000
#define HOST_BUSY_MS      200
#define HOST_BUSY_MAX     3
#define HOST_LOST_MAX     64
#define GAP_GEN1_MS       200
#define GAP_MS            400
#define FRUITLESS_MAX     3
#define EXPLORE_HOST_MS   1000
#define EXPLORE_DEVICE_MS 400
#define FILL_BYTE         0xa5
#define BITMAP_WORDS      (MI_FRAME_MAX / 64 + 1)
#define MANAGE_LIMITS     0
#define MANAGE_LENGTH     1
#define NO_DEADLINE       (-1)
#define UNEXPECTED_ACK    "unexpected acknowledgement"

typedef enum
{
  TX_IDLE,
  TX_WAIT_ACK,    /* announced */
  TX_WAIT_SINGLE, /* the whole message was sent in one frame */
  TX_WAIT_RETRY,  /* the receiver was busy */
  TX_WAIT_DONE,   /* all fragments sent */
} TxState;

typedef enum
{
  RX_IDLE,
  RX_EXPECT,
  RX_COLLECT,
} RxState;

typedef enum
{
  EXPLORE_IDLE,
  EXPLORE_HOST,
  EXPLORE_WAIT_LIMITS, /* device */
  EXPLORE_WAIT_LENGTH, /* device */
} ExploreState;

typedef struct
{
  TxState state;
  guint8 type;
  gboolean single;
  guint16 dmtu; /* of this message: an exploration meanwhile does not touch it */
  guint16 count;
  guint busy;
  guint lost_rounds;
  gint64 deadline_ms;
  gsize len;
  guint8 data[MI_FRAME_MAX];
} Sender;

typedef struct
{
  RxState state;
  guint8 type;
  gsize max;
  guint16 dmtu;
  guint16 count;
  guint16 missing; /* fragments */
  guint16 first;   /* every fragment before it is here */
  guint16 asked;   /* fragments of the last LOST that are still missing */
  gboolean lost;   /* a LOST was sent */
  guint fruitless;
  gint64 deadline_ms;
  gsize last_len;
  guint64 have[BITMAP_WORDS];   /* bit n: fragment n */
  guint64 wanted[BITMAP_WORDS]; /* listed in the last LOST and still missing */
  guint8 data[MI_FRAME_MAX];
} Receiver;

struct _MiFrame
{
  guint16 channel;
  MiFrameRole role;
  MiSizes *sizes;
  gboolean fill_quirk;
  gboolean announce_only;
  guint malformed;
  Sender tx;
  Receiver rx;
  ExploreState explore;
  gint64 explore_deadline_ms;
  guint8 offered;  /* fragment size agreed on in the limits frames, 0: none */
  gsize latch_len; /* 0: nothing latched */
  guint8 latch[LATCH_MAX];
};

static const MiFrameEvent nothing = { MI_FRAME_NOTHING, 0, NULL, 0, NULL };

/* Codec */

static gboolean
ack_is_sound (const MiFrameView *view)
{
  if (view->type == MI_ACK_LOST)
    return view->len >= 2 && view->len % 2 == 0;
  return view->len == 0;
}

static gboolean
manage_is_sound (const MiFrameView *view)
{
  return view->type == MANAGE_LIMITS ? view->len == 2 : view->type == MANAGE_LENGTH;
}

static gboolean
control_is_sound (const MiFrameView *view)
{
  switch (view->mode)
    {
    case MI_FRAME_ANNOUNCE:
      return view->len == 2;
    case MI_FRAME_ACK:
      return ack_is_sound (view);
    case MI_FRAME_SINGLE:
      return view->len >= 1;
    case MI_FRAME_SINGLE_ACK:
      return view->len == 0;
    case MI_FRAME_MANAGE:
    case MI_FRAME_MANAGE_ACK:
      return manage_is_sound (view);
    default:
      return FALSE;
    }
}

gboolean
mi_frame_decode (const guint8 *data, gsize len, MiFrameView *out)
{
  MiReader in = MI_READER (data, len);
  MiFrameView view = { 0 };

  view.sn = mi_reader_u16 (&in);
  if (view.sn == 0)
    {
      view.mode = mi_reader_u8 (&in);
      view.type = mi_reader_u8 (&in);
    }
  view.len = mi_reader_left (&in);
  view.body = mi_reader_take (&in, view.len);
  if (!mi_reader_ok (&in))
    return FALSE;
  if (view.sn == 0 ? !control_is_sound (&view) : view.len == 0)
    return FALSE;
  if (view.sn == 0 && view.mode == MI_FRAME_ANNOUNCE)
    view.count = mi_get_u16 (view.body);
  *out = view;
  return TRUE;
}

static void
put_control (MiFrame *self, guint8 mode, guint8 type, const guint8 *body, gsize len,
             MiEffects *effects)
{
  guint8 frame[FRAME_LEN_MAX] = { 0, 0, mode, type };

  if (len > 0)
    memcpy (frame + 4, body, len);
  mi_effects_write (effects, self->channel, frame, 4 + len);
}

static void
put_ack (MiFrame *self, guint8 mode, guint8 code, MiEffects *effects)
{
  put_control (self, mode, code, NULL, 0, effects);
}

static void
bit_set (guint64 *bitmap, guint n)
{
  bitmap[n / 64] |= G_GUINT64_CONSTANT (1) << n % 64;
}

static void
bit_clear (guint64 *bitmap, guint n)
{
  bitmap[n / 64] &= ~(G_GUINT64_CONSTANT (1) << n % 64);
}

static gboolean
bit_test (const guint64 *bitmap, guint n)
{
  return bitmap[n / 64] >> n % 64 & 1;
}

static guint
fragments_of (gsize len, guint16 dmtu)
{
  return (guint) ((len + dmtu - 1) / dmtu);
}

/* What a size shared with the caller may be used as. */
static guint16
current_dmtu (const MiFrame *self)
{
  return CLAMP (self->sizes->dmtu, DMTU_MIN, FRAME_LEN_MAX - 2);
}

/* Life */

MiFrame *
mi_frame_new (guint16 channel, MiFrameRole role, MiSizes *sizes)
{
  MiFrame *self;

  g_return_val_if_fail (sizes != NULL, NULL);

  self = g_new0 (MiFrame, 1);
  self->channel = channel;
  self->role = role;
  self->sizes = sizes;
  mi_frame_reset (self);
  return self;
}

void
mi_frame_free (MiFrame *self)
{
  if (self == NULL)
    return;
  explicit_bzero (self, sizeof *self);
  g_free (self);
}

void
mi_frame_set_fill_quirk (MiFrame *self, gboolean quirk)
{
  self->fill_quirk = quirk;
}

void
mi_frame_set_announce_only (MiFrame *self, gboolean announce_only)
{
  self->announce_only = announce_only;
}

static void
sender_stop (MiFrame *self)
{
  self->tx.state = TX_IDLE;
  self->tx.deadline_ms = NO_DEADLINE;
}

static void
receiver_stop (MiFrame *self)
{
  self->rx.state = RX_IDLE;
  self->rx.deadline_ms = NO_DEADLINE;
}

static void
explore_stop (MiFrame *self)
{
  self->explore = EXPLORE_IDLE;
  self->explore_deadline_ms = NO_DEADLINE;
  self->offered = 0;
}

void
mi_frame_reset (MiFrame *self)
{
  g_return_if_fail (self != NULL);

  sender_stop (self);
  receiver_stop (self);
  explore_stop (self);
  self->latch_len = 0;
}

/* Sending (section 3) */

static void
put_fragment (MiFrame *self, guint16 sn, MiEffects *effects)
{
  guint8 frame[FRAME_LEN_MAX];
  gsize start = (gsize) (sn - 1) * self->tx.dmtu;
  gsize len = MIN (self->tx.dmtu, self->tx.len - start);

  mi_put_u16 (frame, sn);
  memcpy (frame + 2, self->tx.data + start, len);
  mi_effects_write (effects, self->channel, frame, 2 + len);
}

/* The announce, or the whole message in one frame. */
static void
put_message (MiFrame *self, gint64 now_ms, MiEffects *effects)
{
  Sender *tx = &self->tx;
  guint8 count[2];

  if (tx->single)
    put_control (self, MI_FRAME_SINGLE, tx->type, tx->data, tx->len, effects);
  else
    {
      mi_put_u16 (count, tx->count);
      put_control (self, MI_FRAME_ANNOUNCE, tx->type, count, sizeof count, effects);
    }
  tx->state = tx->single ? TX_WAIT_SINGLE : TX_WAIT_ACK;
  tx->deadline_ms = self->role == MI_ROLE_HOST ? now_ms + HOST_ACK_MS : NO_DEADLINE;
}

static gboolean
fits_single (const MiFrame *self, guint8 type, gsize len)
{
  if (self->role == MI_ROLE_DEVICE_GEN1 || self->announce_only)
    return FALSE;
  /* Devices take it announced only, however short it is (section 1). */
  if (type == MI_MESSAGE_SERVER_CERTIFICATE)
    return FALSE;
  return self->sizes->simul > 1 && len + 2 <= current_dmtu (self);
}

gboolean
mi_frame_send (MiFrame *self, guint8 type, const guint8 *data, gsize len, gint64 now_ms,
               MiEffects *effects)
{
  Sender *tx = &self->tx;

  g_return_val_if_fail (data != NULL && effects != NULL, FALSE);

  if (tx->state != TX_IDLE || len == 0 || len > MI_FRAME_MAX)
    return FALSE;
  memcpy (tx->data, data, len);
  tx->len = len;
  tx->type = type;
  tx->dmtu = current_dmtu (self);
  tx->count = (guint16) fragments_of (len, tx->dmtu);
  tx->single = fits_single (self, type, len);
  tx->busy = 0;
  tx->lost_rounds = 0;
  put_message (self, now_ms, effects);
  return TRUE;
}

static MiFrameEvent
sender_failed (MiFrame *self, const char *reason)
{
  sender_stop (self);
  return (MiFrameEvent){ MI_FRAME_TX_FAILED, self->tx.type, NULL, 0, reason };
}

static MiFrameEvent
sender_done (MiFrame *self)
{
  sender_stop (self);
  return (MiFrameEvent){ MI_FRAME_SENT, self->tx.type, NULL, 0, NULL };
}

static const char *
ack_reason (guint8 code)
{
  switch (code)
    {
    case MI_ACK_BUSY:
      return "busy";
    case MI_ACK_TIMEOUT:
      return "timeout";
    case MI_ACK_CANCEL:
      return "cancelled";
    default:
      return UNEXPECTED_ACK;
    }
}

static MiFrameEvent
sender_go (MiFrame *self, gint64 now_ms, MiEffects *effects)
{
  for (guint sn = 1; sn <= self->tx.count; sn++)
    put_fragment (self, (guint16) sn, effects);
  self->tx.state = TX_WAIT_DONE;
  self->tx.deadline_ms = self->role == MI_ROLE_HOST ? now_ms + HOST_ACK_MS : NO_DEADLINE;
  return nothing;
}

/* A host's message was answered by something else than "go on". */
static MiFrameEvent
host_refused (MiFrame *self, guint8 code, gint64 now_ms)
{
  Sender *tx = &self->tx;

  if (code == MI_ACK_BUSY && tx->state == TX_WAIT_RETRY)
    return nothing;
  if (code != MI_ACK_BUSY || tx->busy == HOST_BUSY_MAX)
    return sender_failed (self, ack_reason (code));
  tx->busy++;
  tx->state = TX_WAIT_RETRY;
  tx->deadline_ms = now_ms + HOST_BUSY_MS;
  return nothing;
}

static MiFrameEvent
on_announce_ack (MiFrame *self, guint8 code, gint64 now_ms, MiEffects *effects)
{
  if (code == MI_ACK_READY)
    return sender_go (self, now_ms, effects);
  switch (self->role)
    {
    case MI_ROLE_HOST:
      return host_refused (self, code, now_ms);
    case MI_ROLE_DEVICE_GEN1:
      put_message (self, now_ms, effects);
      return nothing;
    case MI_ROLE_DEVICE_GEN2:
    default:
      if (code == MI_ACK_SUCCESS || code == MI_ACK_LOST)
        return sender_failed (self, UNEXPECTED_ACK);
      return nothing;
    }
}

static MiFrameEvent
on_single_ack (MiFrame *self, guint8 code, gint64 now_ms, MiEffects *effects)
{
  if (code == MI_ACK_SUCCESS)
    return sender_done (self);
  if (self->role == MI_ROLE_HOST)
    return host_refused (self, code, now_ms);
  if (code == MI_ACK_LOST)
    return sender_failed (self, UNEXPECTED_ACK);
  if (code == MI_ACK_BUSY || code == MI_ACK_CANCEL)
    put_message (self, now_ms, effects);
  return nothing;
}

static guint
resend_limit (const MiFrame *self)
{
  switch (self->role)
    {
    case MI_ROLE_DEVICE_GEN1:
      return 1;
    case MI_ROLE_DEVICE_GEN2:
      return MAX (self->sizes->simul, 1);
    case MI_ROLE_HOST:
    default:
      return G_MAXUINT;
    }
}

static MiFrameEvent
on_lost (MiFrame *self, const MiFrameView *view, gint64 now_ms, MiEffects *effects)
{
  guint64 resent[BITMAP_WORDS] = { 0 };
  MiReader in = MI_READER (view->body, view->len);
  guint n = resend_limit (self);
  Sender *tx = &self->tx;

  if (self->role == MI_ROLE_HOST)
    {
      if (tx->lost_rounds == HOST_LOST_MAX)
        return sender_failed (self, "lost fragments");
      tx->lost_rounds++;
      tx->deadline_ms = now_ms + HOST_ACK_MS;
    }
  for (; n > 0 && mi_reader_left (&in) > 0; n--)
    {
      guint16 sn = mi_reader_u16 (&in);

      /* A number that is listed twice is sent once: a list cannot make us flood the link. */
      if (sn < 1 || sn > tx->count || bit_test (resent, sn))
        continue;
      bit_set (resent, sn);
      put_fragment (self, sn, effects);
    }
  return nothing;
}

static MiFrameEvent
on_fragments_ack (MiFrame *self, const MiFrameView *view, gint64 now_ms, MiEffects *effects)
{
  switch (view->type)
    {
    case MI_ACK_SUCCESS:
      return sender_done (self);
    case MI_ACK_LOST:
      return on_lost (self, view, now_ms, effects);
    case MI_ACK_BUSY:
    case MI_ACK_TIMEOUT:
    case MI_ACK_CANCEL:
      return self->role == MI_ROLE_HOST ? sender_failed (self, ack_reason (view->type)) : nothing;
    default: /* a second READY, an unknown code */
      return nothing;
    }
}

static MiFrameEvent
on_ack (MiFrame *self, const MiFrameView *view, gint64 now_ms, MiEffects *effects)
{
  gboolean to_single = view->mode == MI_FRAME_SINGLE_ACK;
  Sender *tx = &self->tx;

  switch (tx->state)
    {
    case TX_IDLE:
      return nothing;
    case TX_WAIT_DONE:
      return to_single ? nothing : on_fragments_ack (self, view, now_ms, effects);
    case TX_WAIT_ACK:
    case TX_WAIT_SINGLE:
    case TX_WAIT_RETRY:
    default:
      break;
    }
  if (!tx->single)
    return to_single ? nothing : on_announce_ack (self, view->type, now_ms, effects);
  /* The web flasher answers single frames by the other mode's SUCCESS (section 2). */
  if (!to_single && view->type != MI_ACK_SUCCESS)
    return nothing;
  return on_single_ack (self, view->type, now_ms, effects);
}

/* Receiving (section 4) */

static gint64
gap_ms (const MiFrame *self)
{
  switch (self->role)
    {
    case MI_ROLE_DEVICE_GEN1:
      return GAP_GEN1_MS;
    case MI_ROLE_DEVICE_GEN2:
      return GAP_MS * ((MAX (self->sizes->simul, 1) + 5) / 6);
    case MI_ROLE_HOST:
    default:
      return GAP_MS;
    }
}

/* A generation 1 device has no timer once it has sent a LOST. */
static void
receiver_arm (MiFrame *self, gint64 now_ms)
{
  gboolean armed = self->role != MI_ROLE_DEVICE_GEN1 || !self->rx.lost;

  self->rx.deadline_ms = armed ? now_ms + gap_ms (self) : NO_DEADLINE;
}

static MiFrameEvent
receiver_failed (MiFrame *self, const char *reason)
{
  receiver_stop (self);
  return (MiFrameEvent){ MI_FRAME_RX_FAILED, self->rx.type, NULL, 0, reason };
}

static MiFrameEvent
receiver_done (MiFrame *self, gsize len)
{
  receiver_stop (self);
  return (MiFrameEvent){ MI_FRAME_RECEIVED, self->rx.type, self->rx.data, len, NULL };
}

static void
receiver_collect (MiFrame *self, guint16 count, gint64 now_ms, MiEffects *effects)
{
  Receiver *rx = &self->rx;

  rx->state = RX_COLLECT;
  rx->dmtu = current_dmtu (self);
  rx->count = count;
  rx->missing = count;
  rx->first = 1;
  rx->asked = 0;
  rx->lost = FALSE;
  rx->fruitless = 0;
  memset (rx->have, 0, sizeof rx->have);
  memset (rx->wanted, 0, sizeof rx->wanted);
  put_ack (self, MI_FRAME_ACK, MI_ACK_READY, effects);
  receiver_arm (self, now_ms);
}

static MiFrameEvent
take_announce (MiFrame *self, guint16 count, gint64 now_ms, MiEffects *effects)
{
  if (count <= fragments_of (self->rx.max, current_dmtu (self)))
    {
      receiver_collect (self, count, now_ms, effects);
      return nothing;
    }
  put_ack (self, MI_FRAME_ACK, MI_ACK_CANCEL, effects);
  if (self->role == MI_ROLE_DEVICE_GEN1)
    return nothing;
  return receiver_failed (self, "too many fragments");
}

static MiFrameEvent
take_single (MiFrame *self, const MiFrameView *view, MiEffects *effects)
{
  if (view->len > self->rx.max)
    {
      put_ack (self, MI_FRAME_SINGLE_ACK, MI_ACK_CANCEL, effects);
      return receiver_failed (self, "message too long");
    }
  memcpy (self->rx.data, view->body, view->len);
  put_ack (self, MI_FRAME_SINGLE_ACK, MI_ACK_SUCCESS, effects);
  return receiver_done (self, view->len);
}

/* Whether the role knows this announce or single frame at all (section 1). */
static gboolean
takes_type (const MiFrame *self, const MiFrameView *view)
{
  gboolean single = view->mode == MI_FRAME_SINGLE;

  if (!single && view->count == 0)
    return FALSE;
  if (self->role == MI_ROLE_HOST)
    return TRUE;
  if (single && self->role == MI_ROLE_DEVICE_GEN1)
    return FALSE;
  switch (view->type)
    {
    case MI_MESSAGE_DEVICE_CERTIFICATE:
    case MI_MESSAGE_MANUFACTURER_CERTIFICATE:
      return FALSE;
    case MI_MESSAGE_DEVICE_SIGNATURE:
      return single;
    case MI_MESSAGE_SERVER_CERTIFICATE:
      return !single;
    case MI_MESSAGE_WIFI_CONFIG:
      return self->role == MI_ROLE_DEVICE_GEN2;
    default:
      return view->type < MI_MESSAGE_WIFI_CONFIG;
    }
}

/*
 * A sender that has not heard READY takes our LOST for a reason to announce again. Only after a
 * LOST: an announce that is merely doubled must not be answered twice.
 */
static gboolean
is_announced_again (const MiFrame *self, const MiFrameView *view)
{
  const Receiver *rx = &self->rx;

  return self->role == MI_ROLE_HOST && view->mode == MI_FRAME_ANNOUNCE && view->type == rx->type
         && view->count == rx->count && rx->lost && rx->missing == rx->count;
}

static MiFrameEvent
on_message_start (MiFrame *self, const MiFrameView *view, const guint8 *data, gsize len,
                  gint64 now_ms, MiEffects *effects)
{
  Receiver *rx = &self->rx;

  if (!takes_type (self, view))
    return nothing;
  if (rx->state == RX_COLLECT)
    {
      if (is_announced_again (self, view))
        put_ack (self, MI_FRAME_ACK, MI_ACK_READY, effects);
      return nothing;
    }
  if (rx->state == RX_EXPECT && view->type == rx->type)
    return view->mode == MI_FRAME_SINGLE ? take_single (self, view, effects)
                                         : take_announce (self, view->count, now_ms, effects);
  memcpy (self->latch, data, len);
  self->latch_len = len;
  return nothing;
}

MiFrameEvent
mi_frame_expect (MiFrame *self, guint8 type, gsize max, gint64 now_ms, MiEffects *effects)
{
  MiFrameView view;

  g_return_val_if_fail (self != NULL && effects != NULL, nothing);

  receiver_stop (self);
  self->rx.state = RX_EXPECT;
  self->rx.type = type;
  self->rx.max = MIN (max, MI_FRAME_MAX);
  if (self->latch_len == 0 || !mi_frame_decode (self->latch, self->latch_len, &view)
      || view.type != type)
    return nothing;
  self->latch_len = 0;
  return on_message_start (self, &view, self->latch, 0, now_ms, effects);
}

static guint
lost_limit (const MiFrame *self)
{
  gsize room = MAX (self->sizes->att_payload, 20) - 4;

  if (self->role == MI_ROLE_DEVICE_GEN1)
    return 1;
  return MIN (MIN (MAX (self->sizes->simul, 1), LOST_MAX), room / 2);
}

/* Asks for the first missing fragments. */
static void
receiver_ask (MiFrame *self, gint64 now_ms, MiEffects *effects)
{
  guint limit = lost_limit (self);
  guint8 list[2 * LOST_MAX];
  Receiver *rx = &self->rx;
  guint n = 0;

  while (rx->first <= rx->count && bit_test (rx->have, rx->first))
    rx->first++;
  memset (rx->wanted, 0, sizeof rx->wanted);
  for (guint sn = rx->first; sn <= rx->count && n < limit; sn++)
    {
      if (bit_test (rx->have, sn))
        continue;
      bit_set (rx->wanted, sn);
      mi_put_u16 (list + 2 * n++, (guint16) sn);
    }
  rx->asked = (guint16) n;
  rx->lost = TRUE;
  put_control (self, MI_FRAME_ACK, MI_ACK_LOST, list, 2 * n, effects);
  receiver_arm (self, now_ms);
}

static MiFrameEvent
receiver_check (MiFrame *self, gint64 now_ms, MiEffects *effects)
{
  Receiver *rx = &self->rx;

  if (rx->missing > 0)
    {
      receiver_ask (self, now_ms, effects);
      return nothing;
    }
  put_ack (self, MI_FRAME_ACK, MI_ACK_SUCCESS, effects);
  return receiver_done (self, (gsize) (rx->count - 1) * rx->dmtu + rx->last_len);
}

/* Devices know an empty place by its fill (section 4). */
static gboolean
looks_missing (const MiFrame *self, const MiFrameView *view)
{
  if (!self->fill_quirk || view->sn == self->rx.count)
    return FALSE;
  for (gsize i = 0; i < view->len; i++)
    if (view->body[i] != FILL_BYTE)
      return FALSE;
  return TRUE;
}

/* Puts a fragment where it belongs; %FALSE if it is to be ignored. */
static gboolean
receiver_store (MiFrame *self, const MiFrameView *view)
{
  Receiver *rx = &self->rx;
  gsize start = (gsize) (view->sn - 1) * rx->dmtu;
  gsize len = view->len;

  if (view->sn > rx->count || bit_test (rx->have, view->sn))
    return FALSE;
  if (view->sn < rx->count && len != rx->dmtu)
    return FALSE;
  if (len > rx->max - start)
    {
      if (self->role == MI_ROLE_HOST)
        return FALSE;
      len = rx->max - start;
    }
  if (looks_missing (self, view))
    return FALSE;
  memcpy (rx->data + start, view->body, len);
  if (view->sn == rx->count)
    rx->last_len = len;
  bit_set (rx->have, view->sn);
  rx->missing--;
  return TRUE;
}

static MiFrameEvent
on_fragment (MiFrame *self, const MiFrameView *view, gint64 now_ms, MiEffects *effects)
{
  Receiver *rx = &self->rx;

  if (rx->state != RX_COLLECT || !receiver_store (self, view))
    return nothing;
  rx->fruitless = 0;
  receiver_arm (self, now_ms);
  if (!rx->lost)
    return view->sn == rx->count ? receiver_check (self, now_ms, effects) : nothing;
  if (!bit_test (rx->wanted, view->sn))
    return nothing;
  bit_clear (rx->wanted, view->sn);
  rx->asked--;
  return rx->asked == 0 ? receiver_check (self, now_ms, effects) : nothing;
}

/* The gap passed without a fragment. */
static MiFrameEvent
on_gap (MiFrame *self, gint64 now_ms, MiEffects *effects)
{
  Receiver *rx = &self->rx;

  if (rx->lost && ++rx->fruitless == FRUITLESS_MAX)
    {
      put_ack (self, MI_FRAME_ACK, MI_ACK_TIMEOUT, effects);
      return receiver_failed (self, "lost fragments");
    }
  receiver_ask (self, now_ms, effects);
  return nothing;
}

/* Exploration (section 6) */

static guint8
own_dmtu (const MiFrame *self)
{
  return (guint8) CLAMP (self->sizes->att_payload - 2, DMTU_START, DMTU_MAX);
}

void
mi_frame_explore (MiFrame *self, gint64 now_ms, MiEffects *effects)
{
  guint8 limits[2] = { SIMUL_OWN, 0 };

  g_return_if_fail (self != NULL && effects != NULL);

  explore_stop (self);
  switch (self->role)
    {
    case MI_ROLE_HOST:
      self->explore = EXPLORE_HOST;
      self->explore_deadline_ms = now_ms + EXPLORE_HOST_MS;
      break;
    case MI_ROLE_DEVICE_GEN2:
      limits[1] = own_dmtu (self);
      self->sizes->dmtu = DMTU_START;
      put_control (self, MI_FRAME_MANAGE, MANAGE_LIMITS, limits, sizeof limits, effects);
      self->explore = EXPLORE_WAIT_LIMITS;
      self->explore_deadline_ms = now_ms + EXPLORE_DEVICE_MS;
      break;
    case MI_ROLE_DEVICE_GEN1:
    default:
      return;
    }
  self->sizes->explored = TRUE;
}

static MiFrameEvent
explored (MiFrame *self)
{
  explore_stop (self);
  return (MiFrameEvent){ MI_FRAME_EXPLORED, 0, NULL, 0, NULL };
}

static gboolean
is_filled (const guint8 *data, gsize len, guint8 fill)
{
  for (gsize i = 0; i < len; i++)
    if (data[i] != fill)
      return FALSE;
  return TRUE;
}

static void
answer_limits (MiFrame *self, const MiFrameView *view, MiEffects *effects)
{
  guint8 reply[2] = { MIN (view->body[0], SIMUL_OWN), MIN (view->body[1], own_dmtu (self)) };

  self->sizes->simul = MAX (reply[0], 1);
  self->offered = reply[1];
  put_control (self, MI_FRAME_MANAGE_ACK, MANAGE_LIMITS, reply, sizeof reply, effects);
}

static MiFrameEvent
answer_length (MiFrame *self, const MiFrameView *view, MiEffects *effects)
{
  gboolean waited_for = self->explore == EXPLORE_HOST;
  gboolean good = self->offered >= DMTU_MIN && view->len + 2 == self->offered
                  && is_filled (view->body, view->len, self->offered);

  self->sizes->dmtu = good ? self->offered : DMTU_START;
  self->sizes->explored = TRUE;
  put_control (self, MI_FRAME_MANAGE_ACK, MANAGE_LENGTH, view->body, view->len, effects);
  explore_stop (self);
  return waited_for ? explored (self) : nothing;
}

/* A request reaches the host: in any idle state it is answered, whoever began (section 5). */
static MiFrameEvent
on_manage (MiFrame *self, const MiFrameView *view, MiEffects *effects)
{
  if (self->role != MI_ROLE_HOST || self->tx.state != TX_IDLE || self->rx.state == RX_COLLECT)
    return nothing;
  if (view->type == MANAGE_LENGTH)
    return answer_length (self, view, effects);
  answer_limits (self, view, effects);
  return nothing;
}

static MiFrameEvent
on_limits_reply (MiFrame *self, const MiFrameView *view, gint64 now_ms, MiEffects *effects)
{
  guint8 fill[DMTU_MAX];

  self->sizes->simul = CLAMP (view->body[0], 1, SIMUL_OWN);
  self->offered = MIN (view->body[1], own_dmtu (self));
  if (self->offered < DMTU_MIN)
    return explored (self);
  memset (fill, self->offered, sizeof fill);
  put_control (self, MI_FRAME_MANAGE, MANAGE_LENGTH, fill, self->offered - 2, effects);
  self->explore = EXPLORE_WAIT_LENGTH;
  self->explore_deadline_ms = now_ms + EXPLORE_DEVICE_MS;
  return nothing;
}

/* The device looks at length and last byte only. */
static MiFrameEvent
on_length_reply (MiFrame *self, const MiFrameView *view)
{
  if (view->len + 2 == self->offered && view->body[view->len - 1] == self->offered)
    self->sizes->dmtu = self->offered;
  return explored (self);
}

static MiFrameEvent
on_manage_reply (MiFrame *self, const MiFrameView *view, gint64 now_ms, MiEffects *effects)
{
  if (self->explore == EXPLORE_WAIT_LIMITS && view->type == MANAGE_LIMITS)
    return on_limits_reply (self, view, now_ms, effects);
  if (self->explore == EXPLORE_WAIT_LENGTH && view->type == MANAGE_LENGTH)
    return on_length_reply (self, view);
  return nothing;
}

/* Input */

static MiFrameEvent
on_control (MiFrame *self, const MiFrameView *view, const guint8 *data, gsize len, gint64 now_ms,
            MiEffects *effects)
{
  switch ((MiFrameMode) view->mode)
    {
    case MI_FRAME_ANNOUNCE:
    case MI_FRAME_SINGLE:
      return on_message_start (self, view, data, len, now_ms, effects);
    case MI_FRAME_ACK:
    case MI_FRAME_SINGLE_ACK:
      return on_ack (self, view, now_ms, effects);
    case MI_FRAME_MANAGE:
      return on_manage (self, view, effects);
    case MI_FRAME_MANAGE_ACK:
      return on_manage_reply (self, view, now_ms, effects);
    default:
      return nothing;
    }
}

MiFrameEvent
mi_frame_feed (MiFrame *self, const guint8 *data, gsize len, gint64 now_ms, MiEffects *effects)
{
  MiFrameView view;

  g_return_val_if_fail (self != NULL && effects != NULL, nothing);

  if (len > FRAME_LEN_MAX || !mi_frame_decode (data, len, &view))
    {
      self->malformed++;
      return (MiFrameEvent){ MI_FRAME_MALFORMED, 0, data, len, NULL };
    }
  if (view.sn > 0)
    return on_fragment (self, &view, now_ms, effects);
  return on_control (self, &view, data, len, now_ms, effects);
}

/* Time */

static gboolean
is_due (gint64 deadline_ms, gint64 now_ms)
{
  return deadline_ms != NO_DEADLINE && deadline_ms <= now_ms;
}

static MiFrameEvent
on_sender_due (MiFrame *self, gint64 now_ms, MiEffects *effects)
{
  if (self->tx.state != TX_WAIT_RETRY)
    return sender_failed (self, "no acknowledgement");
  put_message (self, now_ms, effects);
  return nothing;
}

MiFrameEvent
mi_frame_tick (MiFrame *self, gint64 now_ms, MiEffects *effects)
{
  g_return_val_if_fail (self != NULL && effects != NULL, nothing);

  /* One at a time: whatever else is due stays due, and mi_frame_deadline() says so. */
  if (is_due (self->tx.deadline_ms, now_ms))
    return on_sender_due (self, now_ms, effects);
  if (is_due (self->rx.deadline_ms, now_ms))
    return on_gap (self, now_ms, effects);
  if (is_due (self->explore_deadline_ms, now_ms))
    return explored (self);
  return nothing;
}

static gint64
earlier (gint64 a, gint64 b)
{
  if (a == NO_DEADLINE || b == NO_DEADLINE)
    return MAX (a, b);
  return MIN (a, b);
}

gint64
mi_frame_deadline (MiFrame *self)
{
  g_return_val_if_fail (self != NULL, NO_DEADLINE);

  return earlier (self->explore_deadline_ms, earlier (self->tx.deadline_ms, self->rx.deadline_ms));
}

gboolean
mi_frame_is_sending (MiFrame *self)
{
  return self->tx.state != TX_IDLE;
}

gboolean
mi_frame_is_receiving (MiFrame *self)
{
  return self->rx.state == RX_COLLECT;
}

gboolean
mi_frame_is_idle (MiFrame *self)
{
  return !mi_frame_is_sending (self) && !mi_frame_is_receiving (self)
         && self->explore == EXPLORE_IDLE;
}

guint
mi_frame_get_malformed (MiFrame *self)
{
  return self->malformed;
}
