/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "mi-error.h"

G_BEGIN_DECLS

/* Sizes of the protocol's secrets and names, in bytes (protocol/registration.md section 2). */
#define MI_TOKEN_LEN    12
#define MI_BIND_KEY_LEN 16
#define MI_DID_LEN      20
#define MI_RANDOM_LEN   16

/* Largest number of effects of one step, and of payload bytes in them. */
#define MI_EFFECTS_MAX   640
#define MI_EFFECTS_ARENA 16384

/**
 * MiChannel:
 *
 * A characteristic, named by the 16-bit part of its UUID (protocol/gatt.md). 0x2b12 is the Telink
 * OTA characteristic, 0xccd8 the connection interval of the thermometer service.
 */
typedef enum
{
  MI_CHANNEL_VERSION = 0x0004,
  MI_CHANNEL_CONTROL = 0x0010,
  MI_CHANNEL_DFU_CONTROL = 0x0017,
  MI_CHANNEL_DFU_DATA = 0x0018,
  MI_CHANNEL_AUTH = 0x0019,
  MI_CHANNEL_EXTENDED = 0x1f1f,
  MI_CHANNEL_MODEL = 0x2a24,
  MI_CHANNEL_SERIAL = 0x2a25,
  MI_CHANNEL_FIRMWARE = 0x2a26,
  MI_CHANNEL_HARDWARE = 0x2a27,
  MI_CHANNEL_SOFTWARE = 0x2a28,
  MI_CHANNEL_MANUFACTURER = 0x2a29,
  MI_CHANNEL_OTA = 0x2b12,
  MI_CHANNEL_TIME = 0xccb7,
  MI_CHANNEL_MEASUREMENT = 0xccc1,
  MI_CHANNEL_BATTERY = 0xccc4,
  MI_CHANNEL_INTERVAL = 0xccd8,
} MiChannel;

/**
 * MiKeys:
 * @token: 12 bytes, proves the host at login
 * @bind_key: 16 bytes, AES-CCM key of the advertisements
 * @did: 20 bytes as on the wire, zero padded on the left; valid if @has_did
 * @auth_version: 1 or 2
 *
 * What a registration yields. Plain value; wipe every copy with mi_keys_clear().
 */
typedef struct
{
  guint8 token[MI_TOKEN_LEN];
  guint8 bind_key[MI_BIND_KEY_LEN];
  guint8 did[MI_DID_LEN];
  gboolean has_did;
  guint16 auth_version;
} MiKeys;

/* How sure the host is of a key set (protocol/registration.md section 7). */
typedef enum
{
  MI_KEY_STATE_PENDING, /* the device may hold them from now on */
  MI_KEY_STATE_CURRENT, /* the device confirmed them */
} MiKeyState;

/**
 * MiCredential:
 *
 * The vendor server's proof for one registration of version 2 (protocol/registration.md
 * section 4). @utc in seconds since 1970; @certificate is DER, at most 512 bytes on a device;
 * @did is left padded. All pointers are borrowed for the duration of the step.
 */
typedef struct
{
  guint8 did[MI_DID_LEN];
  guint8 signature[64]; /* r || s, big-endian */
  guint32 utc;
  const guint8 *certificate;
  gsize certificate_len;
} MiCredential;

/**
 * MiSizes:
 * @att_payload: ATT_MTU - 3 of the connection, 20 or more
 * @dmtu: payload bytes per fragment, 18 until an exploration succeeds
 * @simul: fragments that one LOST may list, 1 until an exploration succeeds
 * @explored: an exploration was tried on this connection
 *
 * What has been negotiated on one connection (protocol/framing.md section 2). Lives as long as
 * the connection; shared by the procedures that run on it one after another.
 */
typedef struct
{
  guint16 att_payload;
  guint16 dmtu;
  guint8 simul;
  gboolean explored;
} MiSizes;

#define MI_SIZES_INIT(att)                                                                         \
  {                                                                                                \
    (att), 18, 1, FALSE                                                                            \
  }

/**
 * MiRandomFunc:
 * @out: where to put @len random bytes
 *
 * Source of randomness, given to a procedure at construction, so that vectors replay.
 * Returns: FALSE if there is none (the procedure fails with %MI_ERROR_CRYPTO).
 */
typedef gboolean (*MiRandomFunc) (guint8 *out, gsize len, gpointer user_data);

typedef enum
{
  MI_EVENT_START,
  MI_EVENT_RECEIVED,       /* a notification on @channel */
  MI_EVENT_WRITTEN,        /* the write with response on @channel was answered */
  MI_EVENT_VALUE,          /* the read of @channel was answered: @data */
  MI_EVENT_IO_FAILED,      /* the read or the write with response on @channel failed; link is up */
  MI_EVENT_TIMER,          /* now_ms has reached the deadline */
  MI_EVENT_PERSISTED,      /* the keys of the last PERSIST effect are durable */
  MI_EVENT_PERSIST_FAILED, /* they could not be made durable */
  MI_EVENT_CREDENTIAL,     /* @credential answers NEED_CREDENTIAL */
  MI_EVENT_CREDENTIAL_REFUSED, /* nobody supplies a credential */
  MI_EVENT_CANCEL,             /* stop: the procedure fails with MI_ERROR_CANCELLED */
  MI_EVENT_LINK_LOST,
} MiEventKind;

/**
 * MiEvent:
 * @now_ms: the time, in ms of any steady clock; never goes backwards within a procedure
 *
 * One input of a procedure. Everything is borrowed for the duration of the step.
 */
typedef struct
{
  MiEventKind kind;
  gint64 now_ms;
  guint16 channel;
  const guint8 *data;
  gsize len;
  const MiCredential *credential;
} MiEvent;

typedef enum
{
  MI_EFFECT_WRITE,         /* write @data without response */
  MI_EFFECT_WRITE_REQUEST, /* write @data with response; WRITTEN or IO_FAILED follows */
  MI_EFFECT_READ,    /* read @channel; VALUE or IO_FAILED follows. Later effects go on at once */
  MI_EFFECT_PERSIST, /* make @keys durable as @key_state; PERSISTED or PERSIST_FAILED follows */
  MI_EFFECT_NEED_CREDENTIAL, /* CREDENTIAL or CREDENTIAL_REFUSED follows; @keys say for what */
  MI_EFFECT_PROGRESS,        /* @done of @total bytes */
  MI_EFFECT_DISCONNECT,      /* drop the link; LINK_LOST follows */
  MI_EFFECT_DONE,            /* finished; the result is read from the procedure's own getters */
  MI_EFFECT_FAILED,          /* failed: @error. Disconnect now: the device may still be busy */
} MiEffectKind;

typedef struct
{
  MiEffectKind kind;
  guint16 channel;
  const guint8 *data;
  gsize len;
  const MiKeys *keys;
  MiKeyState key_state;
  gint64 deadline_ms; /* NEED_CREDENTIAL: answer before this time */
  guint32 done, total;
  const GError *error;
} MiEffect;

/**
 * MiEffects:
 * @items: the first @n are the effects of the last step, in order
 * @deadline_ms: a TIMER event is wanted at this time; -1: none
 *
 * Output of a step: storage of the caller, no allocation. Payloads stay valid until the next step
 * of the same procedure.
 */
typedef struct
{
  MiEffect items[MI_EFFECTS_MAX];
  guint n;
  gint64 deadline_ms;
  gsize arena_used;
  guint8 arena[MI_EFFECTS_ARENA];
  gboolean overflow;
} MiEffects;

typedef struct _MiProcedure MiProcedure;

/**
 * mi_procedure_step:
 * @self: a procedure
 * @event: one event, consumed whole
 * @effects: (out caller-allocates): what to do now, in order
 *
 * The one entry of every state machine of libmi. The rules: effects are carried out in order, the
 * last one too when it is FAILED; DONE or FAILED comes exactly once, after it the object is inert
 * (further steps give no effects); nobody steps from inside a step. Same construction, same events
 * and same random bytes give the same effects, byte for byte.
 */
void mi_procedure_step (MiProcedure *self, const MiEvent *event, MiEffects *effects);

/**
 * mi_procedure_get_name:
 * Returns: (transfer none): "info", "register", "login", "ota" or "dfu"
 */
const char *mi_procedure_get_name (MiProcedure *self);

/**
 * mi_procedure_get_state_name:
 * Returns: (transfer none): name of the state, for logs and error texts
 */
const char *mi_procedure_get_state_name (MiProcedure *self);

/**
 * mi_procedure_is_finished:
 * Returns: %TRUE after DONE or FAILED
 */
gboolean mi_procedure_is_finished (MiProcedure *self);

/**
 * mi_procedure_free:
 * @self: (transfer full) (nullable): wiped and freed
 */
void mi_procedure_free (MiProcedure *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (MiProcedure, mi_procedure_free)

/**
 * mi_keys_clear:
 * @keys: wiped (the compiler cannot leave that out)
 */
void mi_keys_clear (MiKeys *keys);

/**
 * mi_effects_reset: / mi_effects_write: / mi_effects_add:
 *
 * For implementers of procedures and for the device side of the simulator, which uses the same
 * framing: copies @data (at most 512 bytes) into the arena. When the arena or the list is full the
 * effect is dropped and @overflow set; mi_procedure_step() turns that into a failure.
 */
void mi_effects_reset (MiEffects *effects);
void mi_effects_write (MiEffects *effects, guint16 channel, const guint8 *data, gsize len);
MiEffect *mi_effects_add (MiEffects *effects, MiEffectKind kind, guint16 channel);

G_END_DECLS
