/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

/*
 * Advertisements of thermometers (protocol/advertising.md): what arrives from the air, encrypted or
 * not, becomes a plain value. Nothing here keeps state between frames but MiAdvertFilter, and
 * nothing allocates but mi_advert_key_new(). One thread only, as all of libmi's cryptography.
 *
 * For every frame heard:
 *   mi_advert_decode (uuid, address, data, len, key, &advert);
 *   verdict = mi_advert_filter_check (&device->filter, &advert, data, len, now_us);
 *   if (verdict == MI_ADVERT_VERDICT_ACCEPT) ... use advert.readings
 */

/* 16-bit service UUIDs, the keys of the service data. */
#define MI_ADVERT_UUID_MIBEACON 0xFE95
#define MI_ADVERT_UUID_CUSTOM   0x181A /* atc1441 and pvvx */
#define MI_ADVERT_UUID_BTHOME1  0x181C
#define MI_ADVERT_UUID_BTHOME1E 0x181E /* encrypted */
#define MI_ADVERT_UUID_BTHOME2  0xFCD2
#define MI_ADVERT_UUID_QINGPING 0xFDCD
/* Company id of manufacturer data in the MiBeacon layout (old devices, section 1.1). */
#define MI_ADVERT_COMPANY_XIAOMI 0x038F

/* Service data is at most 252 bytes (an AD element's length is one byte). */
#define MI_ADVERT_DATA_MAX 255
/* No frame of MI_ADVERT_DATA_MAX bytes holds more: an object takes two bytes or more. */
#define MI_ADVERT_READINGS_MAX 128

typedef enum
{
  MI_ADVERT_FORMAT_NONE,
  MI_ADVERT_FORMAT_MIBEACON,
  MI_ADVERT_FORMAT_ATC1441,
  MI_ADVERT_FORMAT_ATC1441_ENCRYPTED,
  MI_ADVERT_FORMAT_PVVX,
  MI_ADVERT_FORMAT_PVVX_ENCRYPTED,
  MI_ADVERT_FORMAT_BTHOME1,
  MI_ADVERT_FORMAT_BTHOME1_ENCRYPTED,
  MI_ADVERT_FORMAT_BTHOME2,
  MI_ADVERT_FORMAT_QINGPING,
} MiAdvertFormat;

typedef enum
{
  MI_ADVERT_STATUS_OK,    /* parsed, at least one reading */
  MI_ADVERT_STATUS_EMPTY, /* parsed, nothing usable */
  MI_ADVERT_STATUS_ERROR, /* refused: @error; never any reading */
} MiAdvertStatus;

/* Why a frame was refused (section 2). */
typedef enum
{
  MI_ADVERT_ERROR_NONE,
  MI_ADVERT_ERROR_TRUNCATED,
  MI_ADVERT_ERROR_UNSUPPORTED_FORMAT,
  MI_ADVERT_ERROR_UNSUPPORTED_VERSION,
  MI_ADVERT_ERROR_MESH,
  MI_ADVERT_ERROR_MAC_MISMATCH,
  MI_ADVERT_ERROR_NO_KEY,
  MI_ADVERT_ERROR_BAD_KEY,
  MI_ADVERT_ERROR_AUTH_FAILED,
  MI_ADVERT_ERROR_DOWNGRADE,
  MI_ADVERT_ERROR_MALFORMED,
  MI_ADVERT_N_ERRORS,
} MiAdvertError;

/* What one MiBeacon frame says about being bound; a hint, never a proof (section 3.8). */
typedef enum
{
  MI_BIND_STATE_UNKNOWN,
  MI_BIND_STATE_BOUND,
  MI_BIND_STATE_SOLICITING,
  MI_BIND_STATE_UNBOUND,
  MI_BIND_STATE_PUBLIC,
} MiBindState;

typedef enum
{
  MI_READING_TEMPERATURE, /* degrees Celsius */
  MI_READING_HUMIDITY,    /* % */
  MI_READING_BATTERY,     /* % */
  MI_READING_VOLTAGE,     /* mV */
  MI_READING_BATTERY_LOW, /* 0 or 1 */
  MI_READING_OPENING,     /* 1: open */
  MI_READING_COUNT,
  MI_READING_POWER_ON,     /* 0 or 1 */
  MI_READING_POWER,        /* W */
  MI_READING_ILLUMINANCE,  /* lux */
  MI_READING_PRESSURE,     /* hPa */
  MI_READING_MOISTURE,     /* % */
  MI_READING_CONDUCTIVITY, /* microsiemens per cm */
  MI_READING_DEWPOINT,     /* degrees Celsius */
  MI_READING_CO2,          /* ppm */
  MI_READING_PM25,         /* micrograms per cubic metre */
  MI_READING_PM10,
  MI_READING_TVOC,
  MI_READING_FORMALDEHYDE, /* mg per cubic metre */
  MI_READING_MASS_KG,
  MI_READING_MASS_LB,
  MI_READING_ENERGY,  /* kWh */
  MI_READING_GENERIC, /* 0 or 1 */
  MI_READING_BATTERY_CHARGING,
  MI_READING_LIGHT,
  MI_READING_MOTION,
  MI_READING_WINDOW,
  MI_READING_BUTTON, /* number of the event */
  /* Named values that make no frame "ok" by themselves. */
  MI_READING_PACKET_ID,
  MI_READING_TIMESTAMP,
  MI_READING_DEVICE_TYPE_ID,
  MI_READING_FIRMWARE_VERSION, /* @raw_len parts of 8 bits, the most significant first to print */
  MI_N_READINGS,
} MiReadingKind;

/**
 * MiReading:
 * @value: times 10^@exponent, in the unit of @kind; 0 or 1 for those that
 * mi_reading_kind_is_boolean()
 * @ordinal: 1 for the first value of its kind in the frame, 2 for the second ...; rejected ones
 *   count
 * @raw_len: bytes that it took in the frame
 */
typedef struct
{
  gint64 value;
  gint8 exponent;
  guint8 kind;
  guint8 ordinal;
  guint8 raw_len;
} MiReading;

/* Why a reading was dropped while the rest of its frame was kept (section 10). */
typedef enum
{
  MI_REJECT_TOO_LOW,
  MI_REJECT_TOO_HIGH,
  MI_REJECT_NOT_FINITE, /* a NaN or an infinity; @value is 0 */
  MI_N_REJECTS,
} MiRejectReason;

typedef struct
{
  MiReading reading;
  MiRejectReason reason;
} MiRejected;

/* An object as it stood in the frame, after decryption: @len bytes at #MiAdvert.plain + @offset. */
typedef struct
{
  guint16 id;
  guint8 offset;
  guint8 len;
} MiAdvertObject;

/* Rejected readings that are kept with their reason; @n_rejected goes on counting. */
#define MI_ADVERT_REJECTED_MAX MI_ADVERT_READINGS_MAX

/* Which fields of #MiAdvert hold something. */
typedef enum
{
  MI_ADVERT_HAS_VERSION = 1 << 0,
  MI_ADVERT_HAS_PRODUCT_ID = 1 << 1,    /* MiBeacon, Qingping */
  MI_ADVERT_HAS_PACKET_ID = 1 << 2,     /* 8 bits, not authenticated */
  MI_ADVERT_HAS_COUNTER = 1 << 3,       /* 32 bits, authenticated */
  MI_ADVERT_HAS_FRAME_CONTROL = 1 << 4, /* MiBeacon: frame_control, auth_mode, registered, ... */
  MI_ADVERT_HAS_CAPABILITY = 1 << 5,
  MI_ADVERT_HAS_IO_CAPABILITY = 1 << 6,
  MI_ADVERT_HAS_ENCRYPTED = 1 << 7,
  MI_ADVERT_HAS_TRIGGER_BASED = 1 << 8, /* BTHome v2 */
  MI_ADVERT_HAS_OPENING = 1 << 9,       /* 0x181A: opening, and the raw flags in trigger_flags */
  MI_ADVERT_HAS_TRIGGER_OUTPUT = 1 << 10,
  MI_ADVERT_HAS_MAC = 1 << 11,     /* an address stood in the frame */
  MI_ADVERT_HAS_OBJECTS = 1 << 12, /* the frame was taken apart; there may be none */
} MiAdvertFields;

/**
 * MiAdvert:
 * @fields: a set of #MiAdvertFields; fields whose bit is not set are 0
 * @auth_mode: 0 old, 1 secure chip, 2 standard, 3 reserved (raw in versions 2 and 3)
 * @registered, @solicited: bits 8 and 9 of @frame_control, raw
 * @encrypted: readings came, or would come, out of a cipher text
 * @trigger_based: sends only on events: not to be marked stale after a time
 * @partial: bytes remained after the last complete object
 * @mac: in display order
 *
 * Everything that one frame tells. Fixed size (about 6 KB; for the stack), no pointers. Of the
 * arrays only the first n_... elements are ever written.
 */
typedef struct
{
  guint16 uuid;
  guint16 fields;
  guint8 format; /* MiAdvertFormat */
  guint8 status; /* MiAdvertStatus */
  guint8 error;  /* MiAdvertError */
  guint8 version;
  guint16 product_id;
  guint16 frame_control;
  guint32 counter;
  guint16 io_capability;
  guint8 capability;
  guint8 packet_id;
  guint8 auth_mode;
  guint8 bind_state; /* MiBindState */
  guint8 trigger_flags;
  guint8 mac[6];
  guint8 registered : 1;
  guint8 solicited : 1;
  guint8 encrypted : 1;
  guint8 trigger_based : 1;
  guint8 opening : 1;
  guint8 trigger_output : 1;
  guint8 partial : 1;
  guint8 n_readings;
  guint8 n_rejected;
  guint8 n_objects;
  MiReading readings[MI_ADVERT_READINGS_MAX];
  MiRejected rejected[MI_ADVERT_REJECTED_MAX];
  MiAdvertObject objects[MI_ADVERT_READINGS_MAX];
  guint8 plain[MI_ADVERT_DATA_MAX + 1];
} MiAdvert;

/**
 * MiAdvertKey:
 *
 * One device's key for its advertisements, ready for use: 16 bytes ("bind key", "beacon key") or,
 * for MiBeacon versions 2 and 3, 12 bytes. Prepared by the crypto library once; the library holds
 * at most 24 prepared keys, the one that was not used for longest is prepared again when needed.
 */
typedef struct _MiAdvertKey MiAdvertKey;

/**
 * mi_advert_key_new:
 * @key: (array length=len): copied; wiped by mi_advert_key_free()
 * @len: a length other than 12 and 16 is kept as such: each frame that needs it gives
 *   %MI_ADVERT_ERROR_BAD_KEY
 *
 * Returns: (transfer full)
 */
MiAdvertKey *mi_advert_key_new (const guint8 *key, gsize len);
void mi_advert_key_free (MiAdvertKey *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (MiAdvertKey, mi_advert_key_free)

/**
 * mi_advert_decode:
 * @uuid: 16-bit UUID of the service data
 * @address: (nullable) (array fixed-size=6): advertiser, display order; NULL if unknown
 * @data: (array length=len): service data after the UUID
 * @key: (nullable): the device's key; while there is one, plaintext readings are refused
 * @out: (out caller-allocates): filled in any case
 *
 * Pure: the same arguments give the same result. No allocation, no log, at most one pass over the
 * objects, no read outside @data for any @len.
 *
 * Returns: @out->status
 */
MiAdvertStatus mi_advert_decode (guint16 uuid, const guint8 *address, const guint8 *data, gsize len,
                                 MiAdvertKey *key, MiAdvert *out);

/* Returns: (transfer none) (nullable): the first reading of @kind */
const MiReading *mi_advert_find (const MiAdvert *self, MiReadingKind kind);
/* Returns: @self's value in its unit, as a floating point number */
double mi_reading_get_double (const MiReading *self);

/* Names as in protocol/advertising.md: "temperature_c", "mac_mismatch", "soliciting" ... */
const char *mi_reading_kind_get_name (MiReadingKind kind);
gboolean mi_reading_kind_is_boolean (MiReadingKind kind);
const char *mi_advert_error_get_name (MiAdvertError error);
const char *mi_advert_status_get_name (MiAdvertStatus status);
const char *
mi_advert_format_get_name (MiAdvertFormat format); /* "mibeacon", "pvvx-encrypted" ... */
const char *mi_bind_state_get_name (MiBindState state);
const char *mi_reject_reason_get_name (MiRejectReason reason); /* "too-low", "too-high" ... */

/**
 * MiAdvertIdentity:
 * @format: what the service data looks like; %MI_ADVERT_FORMAT_NONE: only the name tells
 * @product_id: MiBeacon product id; 0: none
 * @model: (nullable): model name, from the product id (MiBeacon, Qingping) or the name; a
 *   constant
 * @custom_firmware: a layout or a name that only replacement firmware uses
 */
typedef struct
{
  MiAdvertFormat format;
  guint16 product_id;
  const char *model;
  gboolean custom_firmware;
} MiAdvertIdentity;

/**
 * mi_advert_identify:
 * @uuid: of the service data, 0: none in this report
 * @data: (nullable): service data
 * @name: (nullable): local name
 * @out: (out caller-allocates): filled in any case
 *
 * For discovery, before anything is known of the device; cheap, needs no key.
 *
 * Returns: whether this may be a thermometer: a MiBeacon of a known product, any layout of section
 *   1 on its UUID, or a known name. A MiBeacon of an unknown product alone is not (many other kinds
 *   of devices send it), but @out->format and @out->product_id are set.
 */
gboolean mi_advert_identify (guint16 uuid, const guint8 *data, gsize len, const char *name,
                             MiAdvertIdentity *out);

/* Returns: (nullable): model name of a MiBeacon product id (section 3.3) */
const char *mi_advert_product_get_model (guint16 product_id);

/* What to do with a decoded frame (section 9). */
typedef enum
{
  MI_ADVERT_VERDICT_ACCEPT,
  MI_ADVERT_VERDICT_DUPLICATE, /* the same frame once more */
  MI_ADVERT_VERDICT_STALE,     /* reordered by a relay */
  MI_ADVERT_VERDICT_REPLAY,    /* authenticated, but older than what was accepted */
  MI_ADVERT_VERDICT_IGNORED,   /* nothing in it */
  MI_ADVERT_VERDICT_ERROR,     /* the decoder refused it: see advert->error */
} MiAdvertVerdict;

#define MI_ADVERT_FILTER_TAGS  8
#define MI_ADVERT_FILTER_UUIDS 6

/* State for one UUID of one device; private. */
typedef struct
{
  gint64 accepted_us;
  guint32 counter;
  guint32 tags[MI_ADVERT_FILTER_TAGS];
  guint8 n_tags;
  guint8 next_tag;
  guint8 packet_id;
  guint8 has_counter : 1;
  guint8 has_packet_id : 1;
} MiAdvertFilterSlot;

/**
 * MiAdvertFilter:
 * @strict: never accept a counter that went back. For stock firmware, whose counter never does;
 *   without it a low counter is accepted after a minute of silence, because custom firmware starts
 *   at 0 after a change of battery
 *
 * Duplicates and replays of one device (one per address). About 300 bytes, plain value; all zero
 * is a fresh one. Everything but @strict is private.
 */
typedef struct
{
  MiAdvertFilterSlot slots[MI_ADVERT_FILTER_UUIDS];
  guint8 auth_failures;
  gboolean strict;
} MiAdvertFilter;

/* Forget everything; wanted when the device gets a new key. @strict stays. */
void mi_advert_filter_reset (MiAdvertFilter *self);

/**
 * mi_advert_filter_check:
 * @advert: as decoded from @data
 * @now_us: monotonic clock, microseconds
 *
 * Only frames that passed every check change the state.
 */
MiAdvertVerdict mi_advert_filter_check (MiAdvertFilter *self, const MiAdvert *advert,
                                        const guint8 *data, gsize len, gint64 now_us);

/**
 * mi_advert_filter_is_wrong_key:
 * Returns: %TRUE after three frames in a row that did not authenticate; one that does clears it
 *   (a single failure may be a bit error or an attacker, section 8)
 */
gboolean mi_advert_filter_is_wrong_key (const MiAdvertFilter *self);

/* Names as in the vectors: "accept", "duplicate" ... */
const char *mi_advert_verdict_get_name (MiAdvertVerdict verdict);

/**
 * MiAdvertElement:
 * @uuid: of service data; of manufacturer data the company, only %MI_ADVERT_COMPANY_XIAOMI: its
 *   @data has the layout of %MI_ADVERT_UUID_MIBEACON
 * @data: borrowed from the advertisement
 */
typedef struct
{
  const guint8 *data;
  guint8 len;
  gboolean manufacturer;
  guint16 uuid;
} MiAdvertElement;

/**
 * MiAdvertSplit:
 * @truncated: an element ran past the end
 * @short_service_data: a service data element had no complete UUID and was left out
 *
 * Iterator over AD structures (section 1.1), for radios that deliver whole advertisements.
 */
typedef struct
{
  const guint8 *data;
  gsize len;
  gsize pos;
  gboolean truncated;
  gboolean short_service_data;
} MiAdvertSplit;

#define MI_ADVERT_SPLIT(bytes, length)                                                             \
  {                                                                                                \
    (const guint8 *) (bytes), (length), 0, FALSE, FALSE                                            \
  }

/* Returns: %FALSE at the end; the flags are final then */
gboolean mi_advert_split_next (MiAdvertSplit *self, MiAdvertElement *out);

G_END_DECLS
