/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <json-glib/json-glib.h>

G_BEGIN_DECLS

/*
 * Checks of a file in the schema of protocol/advertising.md section 13: "vectors" (one frame each),
 * "adv_vectors" (AD structures) and "sequences" (duplicates and replays); any of them may be
 * absent. A sequence with "strict" true is checked without the restart rule of section 9.
 */
typedef char *(*AdvertCheck) (JsonObject *item);

typedef struct
{
  const char *list; /* its name in the file */
  AdvertCheck check;
} AdvertKind;

extern const AdvertKind advert_kinds[3];

/* Each: Returns: (transfer full) (nullable): NULL if @item holds, else what differs */
char *advert_check_vector (JsonObject *item);
char *advert_check_split (JsonObject *item);
char *advert_check_sequence (JsonObject *item);

/* Returns: (nullable): NULL, too, for a member that is JSON's null or no text */
const char *advert_get_text (JsonObject *item, const char *name);
/* Returns: (nullable): bytes of the member @name; empty if it is absent */
GByteArray *advert_get_hex (JsonObject *item, const char *name);

G_END_DECLS
