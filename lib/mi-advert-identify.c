/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "mi-advert.h"

#include "mi-bytes.h"

#include <string.h>

/* What a scanner can say of an unknown advertiser (protocol/advertising.md sections 3.3, 4, 7). */

#define MIBEACON_MIN 5
#define QINGPING_MIN 8

typedef struct
{
  guint16 id;
  const char *model;
} Product;

static const Product mibeacon_products[] = {
  { 0x00db, "MMC-T201-1" },  { 0x01aa, "LYWSDCGQ" },   { 0x0347, "CGG1" },
  { 0x0387, "MHO-C401" },    { 0x0391, "MMC-W505" },   { 0x045b, "LYWSD02" },
  { 0x055b, "LYWSD03MMC" },  { 0x0576, "CGD1" },       { 0x066f, "CGDK2" },
  { 0x06d3, "MHO-C303" },    { 0x0b48, "CGG1" },       { 0x0c3c, "CGC1" },
  { 0x1203, "XMWSDJ04MMC" }, { 0x16e4, "LYWSD02MMC" }, { 0x2542, "LYWSD02MMC" },
  { 0x2832, "MJWSD05MMC" },  { 0x4c47, "MJWSD05MMC" }, { 0x4f59, "CGDK3" },
  { 0x520b, "KS2BB" },       { 0x55b5, "MJWSD06MMC" }, { 0x5808, "CGG3" },
  { 0x5bea, "MJWSD06MMC" },  { 0x5db1, "MBS17" },      { 0x78db, "ESM787" },
  { 0x7ee9, "MBS20" },
};

/* Those of section 7 that measure temperature; the motion sensor (12) is left out. */
static const Product qingping_products[] = {
  { 0x01, "CGG1" },  { 0x04, "CGH1" },   { 0x07, "CGG1" },   { 0x09, "CGP1W" },
  { 0x0c, "CGD1" },  { 0x0e, "CGDN1" },  { 0x0f, "CGM1" },   { 0x10, "CGDK2" },
  { 0x15, "CGF1W" }, { 0x16, "CGG1" },   { 0x18, "CGP23W" }, { 0x1e, "CGC1" },
  { 0x24, "CGDN1" }, { 0x33, "CGP22C" }, { 0x4f, "CGG3" },   { 0x5d, "CGP22C" },
};

typedef struct
{
  const char *name;
  const char *model; /* NULL: the name is that of custom firmware, on any model */
  gboolean prefix;
} Name;

/* protocol/gatt.md section 7; LYWSDCGQ calls itself MJ_HT_V1. */
static const Name names[] = {
  { "LYWSD03MMC", "LYWSD03MMC", FALSE },
  { "LYWSD02", "LYWSD02", FALSE },
  { "LYWSD02MMC", "LYWSD02MMC", FALSE },
  { "MJ_HT_V1", "LYWSDCGQ", FALSE },
  { "MJWSD05MMC", "MJWSD05MMC", FALSE },
  { "MJWSD06MMC", "MJWSD06MMC", FALSE },
  { "XMWSDJ04MMC", "XMWSDJ04MMC", FALSE },
  { "MHO-C401", "MHO-C401", FALSE },
  { "MHO-C303", "MHO-C303", FALSE },
  { "MHO-C122", "MHO-C122", FALSE },
  { "Qingping Temp & RH M", "CGG1", FALSE },
  { "Qingping Temp RH M", "CGG1", FALSE },
  { "Qingping Temp & RH Lite", "CGDK2", FALSE },
  { "Qingping Temp RH Lite", "CGDK2", FALSE },
  { "Qingping Alarm Clock", "CGD1", FALSE },
  { "ATC_", NULL, TRUE },
  { "BTH_", NULL, TRUE },
  { "BTE_", NULL, TRUE },
  { "MJ6_", NULL, TRUE },
  { "D02_", NULL, TRUE },
};

static const char *
find_model (const Product *products, gsize n, guint16 id)
{
  for (gsize i = 0; i < n; i++)
    if (products[i].id == id)
      return products[i].model;
  return NULL;
}

const char *
mi_advert_product_get_model (guint16 product_id)
{
  return find_model (mibeacon_products, G_N_ELEMENTS (mibeacon_products), product_id);
}

static gboolean
identify_mibeacon (const guint8 *data, gsize len, MiAdvertIdentity *out)
{
  if (len < MIBEACON_MIN)
    return FALSE;
  out->format = MI_ADVERT_FORMAT_MIBEACON;
  out->product_id = mi_get_u16 (data + 2);
  out->model = mi_advert_product_get_model (out->product_id);
  return out->model != NULL;
}

static gboolean
identify_custom (gsize len, MiAdvertIdentity *out)
{
  static const guint8 formats[16] = {
    [8] = MI_ADVERT_FORMAT_ATC1441_ENCRYPTED,
    [11] = MI_ADVERT_FORMAT_PVVX_ENCRYPTED,
    [13] = MI_ADVERT_FORMAT_ATC1441,
    [14] = MI_ADVERT_FORMAT_PVVX,
    [15] = MI_ADVERT_FORMAT_PVVX,
  };

  out->format = len < G_N_ELEMENTS (formats) ? formats[len] : MI_ADVERT_FORMAT_NONE;
  out->custom_firmware = out->format != MI_ADVERT_FORMAT_NONE;
  return out->custom_firmware;
}

static gboolean
identify_qingping (const guint8 *data, gsize len, MiAdvertIdentity *out)
{
  if (len < QINGPING_MIN)
    return FALSE;
  out->format = MI_ADVERT_FORMAT_QINGPING;
  out->model = find_model (qingping_products, G_N_ELEMENTS (qingping_products), data[1]);
  return TRUE;
}

static gboolean
identify_data (guint16 uuid, const guint8 *data, gsize len, MiAdvertIdentity *out)
{
  switch (uuid)
    {
    case MI_ADVERT_UUID_MIBEACON:
      return identify_mibeacon (data, len, out);
    case MI_ADVERT_UUID_CUSTOM:
      return identify_custom (len, out);
    case MI_ADVERT_UUID_BTHOME1:
      out->format = MI_ADVERT_FORMAT_BTHOME1;
      return len > 0;
    case MI_ADVERT_UUID_BTHOME1E:
      out->format = MI_ADVERT_FORMAT_BTHOME1_ENCRYPTED;
      return len > 0;
    case MI_ADVERT_UUID_BTHOME2:
      out->format = MI_ADVERT_FORMAT_BTHOME2;
      return len > 0;
    case MI_ADVERT_UUID_QINGPING:
      return identify_qingping (data, len, out);
    default:
      return FALSE;
    }
}

static const Name *
find_name (const char *name)
{
  for (gsize i = 0; i < G_N_ELEMENTS (names); i++)
    if (names[i].prefix ? g_str_has_prefix (name, names[i].name)
                        : strcmp (name, names[i].name) == 0)
      return &names[i];
  return NULL;
}

gboolean
mi_advert_identify (guint16 uuid, const guint8 *data, gsize len, const char *name,
                    MiAdvertIdentity *out)
{
  const Name *known = name != NULL ? find_name (name) : NULL;
  gboolean by_data;

  memset (out, 0, sizeof *out);
  by_data = data != NULL && identify_data (uuid, data, len, out);
  if (known == NULL)
    return by_data;
  if (out->model == NULL)
    out->model = known->model;
  out->custom_firmware |= known->model == NULL;
  return TRUE;
}
