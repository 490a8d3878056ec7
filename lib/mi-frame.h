/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "mi-procedure.h"

G_BEGIN_DECLS

/* Largest message carried: a DFU fragment of 2048 bytes and its index (protocol/framing.md). */
#define MI_FRAME_MAX 2050

typedef enum
{
  MI_MESSAGE_PASS_THROUGH = 0x00,
  MI_MESSAGE_DEVICE_CERTIFICATE = 0x01,
  MI_MESSAGE_MANUFACTURER_CERTIFICATE = 0x02,
  MI_MESSAGE_PUBLIC_KEY = 0x03,
  MI_MESSAGE_DEVICE_SIGNATURE = 0x04,
  MI_MESSAGE_LOGIN_INFO = 0x05,
  MI_MESSAGE_SHARE_INFO = 0x06,
  MI_MESSAGE_SERVER_CERTIFICATE = 0x07,
  MI_MESSAGE_SERVER_SIGNATURE = 0x08,
  MI_MESSAGE_MESH_CONFIG = 0x09,
  MI_MESSAGE_APP_CONFIRMATION = 0x0a,
  MI_MESSAGE_APP_RANDOM = 0x0b,
  MI_MESSAGE_DEVICE_CONFIRMATION = 0x0c,
  MI_MESSAGE_DEVICE_RANDOM = 0x0d,
  MI_MESSAGE_BIND_KEY = 0x0e,
  MI_MESSAGE_WIFI_CONFIG = 0x0f,
} MiMessageType;

typedef enum
{
  MI_FRAME_ANNOUNCE = 0,
  MI_FRAME_ACK = 1,
  MI_FRAME_SINGLE = 2,
  MI_FRAME_SINGLE_ACK = 3,
  MI_FRAME_MANAGE = 4,
  MI_FRAME_MANAGE_ACK = 5,
} MiFrameMode;

typedef enum
{
  MI_ACK_SUCCESS = 0,
  MI_ACK_READY = 1,
  MI_ACK_BUSY = 2,
  MI_ACK_TIMEOUT = 3,
  MI_ACK_CANCEL = 4,
  MI_ACK_LOST = 5,
} MiAckCode;

/**
 * MiFrameView:
 *
 * One decoded frame (protocol/framing.md section 1); @body is borrowed from the input. For sn >= 1
 * it is the fragment's payload, else the arguments after mode and type.
 */
typedef struct
{
  guint16 sn;
  guint8 mode;
  guint8 type;
  const guint8 *body;
  gsize len;
  guint16 count; /* announce: number of fragments */
} MiFrameView;

/**
 * mi_frame_decode:
 * Returns: %FALSE for everything that section 5 calls malformed
 */
gboolean mi_frame_decode (const guint8 *data, gsize len, MiFrameView *out);

typedef enum
{
  MI_ROLE_HOST,
  MI_ROLE_DEVICE_GEN1, /* 2019: one LOST number, no single frames, no management */
  MI_ROLE_DEVICE_GEN2,
} MiFrameRole;

typedef enum
{
  MI_FRAME_NOTHING,
  MI_FRAME_SENT,      /* @type was acknowledged */
  MI_FRAME_RECEIVED,  /* @type, @data, @len: whole message, valid until the next call */
  MI_FRAME_TX_FAILED, /* @type, @reason */
  MI_FRAME_RX_FAILED, /* @type, @reason */
  MI_FRAME_MALFORMED, /* counted and ignored */
  MI_FRAME_EXPLORED,  /* an exploration ended; sizes have been updated (or not) */
} MiFrameEventKind;

typedef struct
{
  MiFrameEventKind kind;
  guint8 type;
  const guint8 *data;
  gsize len;
  const char *reason; /* static: "busy", "cancelled", "timeout", "no acknowledgement",
                         "lost fragments", "too many fragments", ... */
} MiFrameEvent;

/**
 * MiFrame:
 *
 * The chunked transfer of protocol/framing.md as one small state machine for both sides and one
 * characteristic. It knows no opcode's meaning, has no clock and allocates nothing after
 * construction. Frames to send are added to a #MiEffects as writes on the frame's channel (on a
 * device they are notifications). A call gives at most one event.
 */
typedef struct _MiFrame MiFrame;

/**
 * mi_frame_new:
 * @channel: characteristic used
 * @role: which side's rules apply
 * @sizes: (not nullable): borrowed, outlives the frame; read for every message, updated by an
 * exploration
 */
MiFrame *mi_frame_new (guint16 channel, MiFrameRole role, MiSizes *sizes);
void mi_frame_free (MiFrame *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (MiFrame, mi_frame_free)

/* Device option: a fragment of 0xA5 only counts as missing (section 4, fill quirk). */
void mi_frame_set_fill_quirk (MiFrame *self, gboolean quirk);
/* Host option: never use single frames, as the web flasher does. */
void mi_frame_set_announce_only (MiFrame *self, gboolean announce_only);

/* Back to idle: drops transfers, the latched frame and the timers, not the sizes. */
void mi_frame_reset (MiFrame *self);

/**
 * mi_frame_send:
 * @data: 1..%MI_FRAME_MAX bytes, copied
 *
 * Starts sending one message; one at a time. Returns: %FALSE if busy or out of range.
 */
gboolean mi_frame_send (MiFrame *self, guint8 type, const guint8 *data, gsize len, gint64 now_ms,
                        MiEffects *effects);

/**
 * mi_frame_expect:
 * @max: longest acceptable message
 *
 * From now on a message of @type is taken. A latched early announce or single frame is answered
 * at once, so this may already deliver (section 4, early commands).
 */
MiFrameEvent mi_frame_expect (MiFrame *self, guint8 type, gsize max, gint64 now_ms,
                              MiEffects *effects);

/* One received frame. */
MiFrameEvent mi_frame_feed (MiFrame *self, const guint8 *data, gsize len, gint64 now_ms,
                            MiEffects *effects);

/* Time has come to mi_frame_deadline(). Harmless when too early. */
MiFrameEvent mi_frame_tick (MiFrame *self, gint64 now_ms, MiEffects *effects);

/* Returns: absolute ms of the next wanted tick, -1: none */
gint64 mi_frame_deadline (MiFrame *self);

/**
 * mi_frame_explore:
 *
 * Device: send the limits request after opcode 0xA4 (section 6). Host: from now on requests are
 * answered, EXPLORED comes when the length request was echoed or after 1 s without one. (A host
 * in an idle state answers requests that come without it, too.)
 */
void mi_frame_explore (MiFrame *self, gint64 now_ms, MiEffects *effects);

gboolean mi_frame_is_sending (MiFrame *self);
gboolean mi_frame_is_receiving (MiFrame *self); /* collecting fragments after READY ("rxd") */
gboolean mi_frame_is_idle (MiFrame *self);
guint mi_frame_get_malformed (MiFrame *self);

G_END_DECLS
