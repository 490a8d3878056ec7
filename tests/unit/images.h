/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

/* Synthetic firmware files for tests (protocol/image.md sections 1 to 3, 7). */

#define IMAGES_CUSTOM 0x1141

/* build(size, seed, manufacturer, type, version) of the vectors. */
GByteArray *images_build (gsize size, guint seed, guint16 manufacturer, guint16 type,
                          guint32 version);
/* The same with each of the NULL-terminated texts somewhere in the body, and the CRC right again.
 */
GByteArray *images_build_text (gsize size, guint16 manufacturer, guint type,
                               ...) G_GNUC_NULL_TERMINATED;
/* Stores the CRC of the image as its size field has it. */
void images_fix_crc (GByteArray *image);
/* A Zigbee container around @image. */
GByteArray *images_container (GByteArray *image, guint16 manufacturer, guint16 type);
/* r || s as DER. */
GByteArray *images_signature_der (const guint8 signature[64]);
/* (transfer full): takes @image */
GBytes *images_bytes (GByteArray *image);

G_END_DECLS
