/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "mi-certificate.h"
#include "mi-error.h"

G_BEGIN_DECLS

/* Shorter than this no file is a Telink image (protocol/image.md section 9). */
#define MI_IMAGE_MIN_SIZE 0x24

/**
 * MiImageKind:
 *
 * What a file is (protocol/image.md section 9). The names of mi_image_kind_to_string() are those
 * of InspectImage.
 */
typedef enum
{
  MI_IMAGE_UNKNOWN,        /* "unknown": no Telink image, or one that nothing identifies */
  MI_IMAGE_STOCK,          /* "stock": the vendor's, without trailer */
  MI_IMAGE_STOCK_SIGNED,   /* "stock-signed": tag, chain, signature and padding all valid */
  MI_IMAGE_CUSTOM_PVVX,    /* "custom-pvvx" */
  MI_IMAGE_CUSTOM_ATC1441, /* "custom-atc1441" */
  MI_IMAGE_TUYA,           /* "tuya" */
  MI_IMAGE_ENVELOPED,      /* "enveloped": an image under somebody else's trailer, with fill */
  MI_IMAGE_DAMAGED,        /* "damaged": size, CRC, tag, chain, signature or padding is wrong */
} MiImageKind;

const char *mi_image_kind_to_string (MiImageKind kind);

typedef enum
{
  MI_VERDICT_ABSENT, /* the file has no such part */
  MI_VERDICT_VALID,
  MI_VERDICT_INVALID,
} MiVerdict;

/* "absent", "valid", "invalid" */
const char *mi_verdict_to_string (MiVerdict verdict);

typedef enum
{
  MI_CHECK_CRC,       /* size field and CRC-32 of the Telink image */
  MI_CHECK_TAG,       /* fields and CRC-32 of the tag */
  MI_CHECK_CHAIN,     /* root key -> certificate 1 -> certificate 2, and strict PEM */
  MI_CHECK_SIGNATURE, /* by certificate 2 over firmware and tag */
  MI_CHECK_PADDING,   /* 0 to 15 bytes FF after the signature */
  MI_CHECK_COUNT,
} MiImageCheck;

typedef enum
{
  MI_CONTAINER_NONE,   /* no known magic */
  MI_CONTAINER_TELINK, /* "KNLT" at offset 8 */
  MI_CONTAINER_ZIGBEE, /* 0x0BEEF11E at offset 0 */
} MiContainer;

/* The header of a Telink image (protocol/image.md section 1). */
typedef struct
{
  guint32 file_version;
  gboolean fw_check_flag; /* 0x06 is 0x5D */
  guint8 check_algorithm; /* 2: CRC-32 */
  guint16 manufacturer;   /* 0 stock, 0x1141 custom */
  guint16 image_type;     /* 0x0200 + hardware id on custom images */
  guint32 header_size;    /* the size field: bytes including the CRC */
  gboolean crc_known;     /* the size field lies within the image, so that there is a CRC */
  guint32 crc;            /* as stored */
  gboolean crc_ok;
  gint64 trailing; /* bytes after the image; negative if the file is too short */
} MiImageHeader;

/* The header of a Zigbee OTA container (protocol/image.md section 7). */
typedef struct
{
  guint16 header_version;
  guint16 header_length;
  guint16 field_control;
  guint16 manufacturer;
  guint16 image_type;
  guint32 file_version;
  guint16 stack_version;
  guint32 total_size;
  guint16 element_tag;
  guint32 element_length;
  guint32 image_offset; /* of the embedded image in the file */
} MiZigbeeHeader;

/* The tag of a trailer (protocol/image.md section 3). */
typedef struct
{
  guint32 offset; /* of the magic, in the embedded image */
  guint16 tag_size;
  guint16 pid;
  guint32 firmware_size;
  guint16 cert_size;
  guint8 flag; /* 1 LZMA, 2 bsdiff */
  guint8 reserved;
  char new_version[24]; /* "2.1.1_0159", empty if absent */
  char old_version[24];
  gint sign_type; /* -1: absent */
  char model[256];
  gint64 pid32;   /* -1: absent */
  gboolean valid; /* sizes and TLVs are consistent */
  guint32 crc;    /* as stored */
  gboolean crc_ok;
} MiImageTag;

/**
 * MiImage:
 *
 * What is known about one firmware file: pure, computed once at construction, immutable.
 */
typedef struct _MiImage MiImage;

/**
 * mi_image_new:
 * @file: any bytes; a reference is kept
 * @root: (nullable): public key X || Y that the first certificate must verify with; NULL: the
 * vendor's
 *
 * Never fails: whatever is wrong with the file is among the facts.
 */
MiImage *mi_image_new (GBytes *file, const guint8 root[64]);

/* The same with @n_roots keys one after the other, any of which may be the root. */
MiImage *mi_image_new_with_roots (GBytes *file, const guint8 *roots, gsize n_roots);
MiImage *mi_image_ref (MiImage *self);
void mi_image_unref (MiImage *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (MiImage, mi_image_unref)

/**
 * mi_image_check:
 *
 * Whether the file, or the image embedded in its container, is a sound Telink image: long enough
 * (%MI_IMAGE_MIN_SIZE), magic, size field within the file and 16*k + 4, CRC, a container that is
 * consistent. Says nothing about trailers: see mi_image_get_verdict(), mi_image_is_signed().
 *
 * Returns: %FALSE with %MI_ERROR_BAD_IMAGE naming what is wrong and the numbers seen
 */
gboolean mi_image_check (MiImage *self, GError **error);

MiImageKind mi_image_get_kind (MiImage *self);

/**
 * mi_image_get_body_kind:
 *
 * Which firmware a device runs after it booted this image, whatever trailer is behind it:
 * %MI_IMAGE_STOCK, %MI_IMAGE_CUSTOM_PVVX, %MI_IMAGE_CUSTOM_ATC1441, %MI_IMAGE_TUYA or
 * %MI_IMAGE_UNKNOWN.
 */
MiImageKind mi_image_get_body_kind (MiImage *self);

/**
 * mi_image_is_signed:
 *
 * Whether the image is the vendor's beyond doubt: CRC, tag, chain, signature and padding valid
 * (kind %MI_IMAGE_STOCK_SIGNED). Only this satisfies a device that demands a signature.
 */
gboolean mi_image_is_signed (MiImage *self);

MiVerdict mi_image_get_verdict (MiImage *self, MiImageCheck check);

/**
 * mi_image_get_version:
 *
 * The version that a device answers after it booted the image: the tag's if the tag is valid, else
 * the one `1.0.0_0130` in a stock body, else the one `V5.8` in a custom pvvx body. See
 * mi_models_get_image_version() for files known by SHA-256.
 *
 * Returns: (nullable)
 */
const char *mi_image_get_version (MiImage *self);

/* The hardware id of a custom image (image type - 0x0200 under manufacturer 0x1141), else -1. */
gint mi_image_get_hardware_id (MiImage *self);

MiContainer mi_image_get_container (MiImage *self);
/* (nullable): NULL if the image has no magic, or is too short for a header */
const MiImageHeader *mi_image_get_header (MiImage *self);
const MiZigbeeHeader *mi_image_get_zigbee (MiImage *self); /* (nullable) */
const MiImageTag *mi_image_get_tag (MiImage *self);        /* (nullable) */
guint mi_image_get_n_certificates (MiImage *self);
MiCertificate *mi_image_get_certificate (MiImage *self, guint index);
/* Bytes FF after the signature; -1: there is no signature, or other bytes follow it */
gint mi_image_get_padding (MiImage *self);

gsize mi_image_get_file_size (MiImage *self);
/* SHA-256 of the file, and of the embedded image: 64 lower-case hex digits */
const char *mi_image_get_sha256 (MiImage *self);
const char *mi_image_get_payload_sha256 (MiImage *self);

/**
 * mi_image_get_payload:
 *
 * What is uploaded: the whole file with its trailer, or the image embedded in a container.
 *
 * Returns: (transfer none)
 */
GBytes *mi_image_get_payload (MiImage *self);

/* Number of 16-byte blocks of the upload; blocks * 16 must not exceed the device's limit. */
guint32 mi_image_get_blocks (MiImage *self);

/* Whether the body of the image (trailer excluded) contains @text. */
gboolean mi_image_contains (MiImage *self, const char *text);

/**
 * mi_image_describe:
 * @version: (nullable): overrides mi_image_get_version()
 * @models: (nullable): names of the models that the image is for
 *
 * All facts, as InspectImage answers them: a{sv} with nested a{sv}; `tag`, `zigbee` and `verify`
 * are left out where the file has none. Use mi_models_describe_image() for version and models.
 *
 * Returns: (transfer floating)
 */
GVariant *mi_image_describe (MiImage *self, const char *version, const char *const *models);

/**
 * mi_image_apply_envelope:
 * @image: a sound Telink image without trailer
 * @envelope: a signature envelope file (protocol/image.md section 8)
 *
 * Returns: (transfer full): the upload built of both, or NULL with %MI_ERROR_BAD_IMAGE. It is not
 *   validly signed: the device alone decides about it.
 */
GBytes *mi_image_apply_envelope (GBytes *image, GBytes *envelope, GError **error);

G_END_DECLS
