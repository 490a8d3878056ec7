/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "mi-procedure.h"

G_BEGIN_DECLS

#define MI_OTA_BLOCK_LEN      16
#define MI_OTA_PACKET_LEN     20
#define MI_OTA_WINDOW_DEFAULT 8
#define MI_OTA_WINDOW_MAX     256

/**
 * MiOtaOptions:
 * @window: blocks between two reads of the characteristic, 1..%MI_OTA_WINDOW_MAX, 0: 8
 * @pipelined: the read of window n is on its way while window n + 1 is written; else each read is
 *   waited for
 * @set_interval: characteristic 0xccd8 exists: ask for 30 ms first
 * @request: the characteristic lacks write-without-response: write with response, no reads
 *
 * How to upload (protocol/ota-telink.md section 2).
 */
typedef struct
{
  guint window;
  gboolean pipelined;
  gboolean set_interval;
  gboolean request;
} MiOtaOptions;

/**
 * mi_ota_new:
 * @image: borrowed for the procedure's life: every byte is sent (a trailer, too)
 * @len: 1..0xFF00 * 16 bytes
 *
 * Telink OTA up to and including the link drop that follows the end command (10 s; DONE with
 * mi_ota_saw_drop() FALSE if none comes). A read-back or an FF06 notification with a code other
 * than 0 is %MI_ERROR_OTA. Link lost before the end command: %MI_ERROR_LINK_LOST. CANCEL after
 * the end command is ignored. Nothing is allocated per block.
 */
MiProcedure *mi_ota_new (const guint8 *image, gsize len, const MiOtaOptions *options);

guint32 mi_ota_get_blocks (MiProcedure *self);
gboolean mi_ota_end_sent (MiProcedure *self);
gboolean mi_ota_saw_drop (MiProcedure *self);
/* Result code seen, 0: none or success; texts for it (protocol/ota-telink.md section 3). */
guint8 mi_ota_get_code (MiProcedure *self);
const char *mi_ota_code_text (guint8 code);

/**
 * mi_ota_packet:
 * @out: %MI_OTA_PACKET_LEN bytes: index, 16 bytes of @image padded with FF, CRC-16
 */
void mi_ota_packet (const guint8 *image, gsize len, guint16 index, guint8 *out);

G_END_DECLS
